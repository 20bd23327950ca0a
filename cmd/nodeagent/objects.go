package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/credential"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/object"
	"github.com/nodeagent/nodeagent/pkg/podsource"
	"github.com/nodeagent/nodeagent/pkg/volume"
)

// manifests is what the manifest directory holds.
type manifests struct {
	pods    map[types.UID]bool
	objects podsource.Objects
}

func newManifests(pods []*corev1.Pod, objects podsource.Objects) *manifests {
	m := &manifests{pods: map[types.UID]bool{}, objects: objects}
	for _, pod := range pods {
		m.pods[pod.UID] = true
	}
	return m
}

// newObjects serves what pods of the API server refer to; nil when standalone.
// SetPods must be called with the API server's pods before they are desired.
func (a *agent) newObjects() *object.Store {
	if a.cluster == nil {
		return nil
	}
	return object.New(object.Config{
		NodeName: a.cfg.Agent.NodeName, Core: a.cluster.core, Certificates: a.cluster.certificates,
		KeepDir: filepath.Join(a.cfg.Agent.StateDir, "objects"), Wake: func(uid types.UID) { a.pool.Refresh(uid) }, Log: a.log,
	})
}

// volumeServer is the Store, or nothing at all: an interface that holds a nil
// pointer is not nil.
func (a *agent) volumeServer() volume.Server {
	if a.objects == nil {
		return nil
	}
	return a.objects
}

// local says whether a pod's config maps and secrets are those of the manifest
// directory. It goes by the UID, which only the directory or the API server can
// have given: an annotation can be written by anyone who can make a pod, and would
// show the machine's secrets to a pod of the API server.
func (a *agent) local(pod *corev1.Pod) bool {
	return a.objects == nil || a.manifests.Load().pods[pod.UID]
}

func (a *agent) configMap(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error) {
	if !a.local(pod) {
		return a.objects.ConfigMap(ctx, pod, name)
	}
	if cm := a.manifests.Load().objects.ConfigMaps[types.NamespacedName{Namespace: pod.Namespace, Name: name}]; cm != nil {
		return cm, nil
	}
	return nil, fmt.Errorf("configmap %q not found in the manifest directory: %w", name, fs.ErrNotExist)
}

func (a *agent) secret(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error) {
	if !a.local(pod) {
		return a.objects.Secret(ctx, pod, name)
	}
	if s := a.manifests.Load().objects.Secrets[types.NamespacedName{Namespace: pod.Namespace, Name: name}]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("secret %q not found in the manifest directory: %w", name, fs.ErrNotExist)
}

// services are variables for pods of the API server. Those of the manifest
// directory have none: they start without an API server.
func (a *agent) services(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	if a.local(pod) {
		return nil, nil
	}
	return a.objects.Services(ctx, pod)
}

type providersFunc = func(ctx context.Context, pod *corev1.Pod, image string) ([]cri.Credential, error)

// credentialProviders are the programs of this machine that know credentials; nil
// where none are configured.
func (a *agent) credentialProviders() (providersFunc, error) {
	c := a.cfg.Agent
	if c.ImageCredentialProviderConfig == "" {
		return nil, nil
	}
	p, err := credential.Load(c.ImageCredentialProviderConfig, c.ImageCredentialProviderBinDir)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, pod *corev1.Pod, image string) ([]cri.Credential, error) {
		found, err := p.Credentials(ctx, image, a.account(pod))
		out := make([]cri.Credential, len(found))
		for i, c := range found {
			out[i] = cri.Credential(c)
		}
		return out, err
	}, nil
}

// account is a pod's service account. Pods of the manifest directory have none.
func (a *agent) account(pod *corev1.Pod) *credential.Account {
	if a.local(pod) || pod.Spec.ServiceAccountName == "" {
		return nil
	}
	return &credential.Account{
		Get: func(ctx context.Context) (*corev1.ServiceAccount, error) { return a.objects.ServiceAccount(ctx, pod) },
		Token: func(ctx context.Context, audience string) (string, error) {
			token, _, err := a.objects.RequestToken(ctx, pod, audience, int64(credential.TokenLife.Seconds()))
			return token, err
		},
	}
}
