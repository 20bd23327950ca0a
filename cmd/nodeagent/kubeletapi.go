package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/server"
)

// apiParts serve the kubelet's API to the cluster. Without one there is nobody to
// serve, and nothing listens on the network.
func (a *agent) apiParts() []func(context.Context) error {
	k := a.cfg.Kubelet
	if a.cluster == nil {
		return nil
	}
	var parts []func(context.Context) error
	if ptr.Deref(k.EnableServer, true) {
		parts = append(parts, a.serveAPI)
	}
	if ptr.Deref(k.HealthzPort, 0) > 0 {
		parts = append(parts, a.serveHealth)
	}
	return parts
}

func (a *agent) serveAPI(ctx context.Context) error {
	k := a.cfg.Kubelet
	certificate, err := a.servingCertificate()
	if err != nil {
		return err
	}
	l, err := listenTCP(ctx, k.Address, k.Port, "port")
	if err != nil {
		return err
	}
	minVersion, suites := a.cfg.TLS()
	funcs := a.funcs()
	if err := a.measure(&funcs, certificate); err != nil {
		return errors.Join(err, l.Close())
	}
	api := &server.API{
		Funcs: funcs, Auth: a.auth(), Certificate: certificate, MinVersion: minVersion, CipherSuites: suites,
		StreamIdle: k.StreamingConnectionIdleTimeout.Duration, NoDebugging: !ptr.Deref(k.EnableDebuggingHandlers, true), Log: a.log,
	}
	return api.Run(ctx, l)
}

func (a *agent) serveHealth(ctx context.Context) error {
	k := a.cfg.Kubelet
	l, err := listenTCP(ctx, k.HealthzBindAddress, *k.HealthzPort, "healthzPort")
	if err != nil {
		return err
	}
	return (&server.Server{Funcs: server.Funcs{Healthy: a.healthy}, Log: a.log}).ServeHealth(ctx, l)
}

func listenTCP(ctx context.Context, address string, port int32, field string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return nil, fmt.Errorf("serve the cluster: %w: another kubelet or agent may use that port; choose one with %s", err, field)
	}
	return l, nil
}

// auth asks the API server who callers are and what they may do.
func (a *agent) auth() server.Auth {
	n, z := a.cfg.Kubelet.Authentication, a.cfg.Kubelet.Authorization
	out := server.Auth{
		NodeName: a.cfg.Agent.NodeName, ClientCAFile: n.X509.ClientCAFile, Anonymous: ptr.Deref(n.Anonymous.Enabled, false),
		TokenTTL: n.Webhook.CacheTTL.Duration, AllowTTL: z.Webhook.CacheAuthorizedTTL.Duration, DenyTTL: z.Webhook.CacheUnauthorizedTTL.Duration,
	}
	if ptr.Deref(n.Webhook.Enabled, true) {
		out.TokenReview = func(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
			return a.cluster.authentication.TokenReviews().Create(ctx, r, metav1.CreateOptions{})
		}
	}
	if z.Mode != kubeletconfig.KubeletAuthorizationModeAlwaysAllow {
		out.AccessReview = func(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
			return a.cluster.authorization.SubjectAccessReviews().Create(ctx, r, metav1.CreateOptions{})
		}
	}
	return out
}

// healthy answers when what the agent works with does: who waits for a lock that
// is never released gets no answer.
func (a *agent) healthy(context.Context) error {
	a.runtime.Pods()
	a.board.List()
	return nil
}

// target finds what a request is for.
func (a *agent) target(_ context.Context, t server.Target) (types.UID, error) {
	pod, err := a.findUID(t.Namespace, t.Pod, t.UID)
	if err != nil {
		return "", err
	}
	if t.Container == "" {
		return pod.UID, nil
	}
	if !hasContainer(pod, t.Container) {
		return pod.UID, server.NotFound(fmt.Sprintf("container %q not found in pod %q", t.Container, t.Pod))
	}
	if t.Running {
		_, err = a.running(&server.Session{Namespace: t.Namespace, Pod: t.Pod, UID: t.UID, Container: t.Container})
	}
	return pod.UID, err
}

func hasContainer(pod *corev1.Pod, name string) bool {
	return slices.Contains(containerNames(pod), name)
}

func (a *agent) portForward(ctx context.Context, t server.Target, port int32, stream io.ReadWriteCloser) error {
	pod, err := a.findUID(t.Namespace, t.Pod, t.UID)
	if err != nil {
		return err
	}
	err = a.runtime.PortForward(ctx, pod.UID, port, stream)
	if errors.Is(err, cri.ErrNotRunning) {
		return server.BadRequest(fmt.Sprintf("pod %q is not running", t.Pod))
	}
	return err
}

// runningPods is what runs, as far as the runtime knows.
func (a *agent) runningPods(context.Context) (any, error) {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{}}
	for _, p := range a.runtime.Pods() {
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
		for _, c := range p.Containers {
			if c.State == cri.Running {
				pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c.Name, Image: c.Image})
			}
		}
		if len(pod.Spec.Containers) > 0 {
			list.Items = append(list.Items, pod)
		}
	}
	return list, nil
}

// configz is the configuration that is in force. Headers may hold secrets.
func (a *agent) configz(context.Context) (any, error) {
	k := a.cfg.Kubelet
	if k.StaticPodURLHeader != nil {
		hidden := map[string][]string{}
		for name := range k.StaticPodURLHeader {
			hidden[name] = []string{"<masked>"}
		}
		k.StaticPodURLHeader = hidden
	}
	return map[string]any{"kubeletconfig": k}, nil
}
