package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/server"
)

// client talks to the agent on this machine.
type client struct {
	socket string
	http   *http.Client
}

func newClient(socket string) *client {
	return &client{socket: socket, http: &http.Client{Transport: unixTransport(socket)}}
}

func unixTransport(socket string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}

func agentURL(query url.Values, path ...string) *url.URL {
	u := &url.URL{Scheme: "http", Host: "nodeagent", RawQuery: query.Encode()}
	return u.JoinPath(path...)
}

// do sends a request and returns the body of a successful answer.
func (c *client) do(ctx context.Context, method string, u *url.URL) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		msg, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil {
			return nil, fmt.Errorf("read the agent's answer: %w", err)
		}
		return nil, &server.Error{Code: resp.StatusCode, Message: string(bytes.TrimSpace(msg))}
	}
	return resp.Body, nil
}

// explain turns a failure to connect into what the user can do about it.
func (c *client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no agent answers on %s: start one with `nodeagent run`, or name its socket with --socket", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("may not open %s: the agent answers only root", c.socket)
	default:
		return err
	}
}

func (c *client) get(ctx context.Context, into any, path ...string) error {
	body, err := c.do(ctx, http.MethodGet, agentURL(nil, path...))
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(into)
}

func (c *client) pods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := c.get(ctx, &list, "pods"); err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return list.Items, nil
}

// pod finds a pod by name; see podNamed.
func (c *client) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pods, err := c.pods(ctx)
	if err != nil {
		return nil, err
	}
	return podNamed(pods, namespace, name)
}

// podNamed picks a pod by name. The name from the manifest, without the node's
// suffix, is accepted too when it is not ambiguous.
func podNamed(pods []corev1.Pod, namespace, name string) (*corev1.Pod, error) {
	var short []*corev1.Pod
	for i := range pods {
		p := &pods[i]
		if p.Namespace != namespace {
			continue
		}
		if p.Name == name {
			return p, nil
		}
		if hasShortName(p, name) {
			short = append(short, p)
		}
	}
	if len(short) == 1 {
		return short[0], nil
	}
	return nil, fmt.Errorf("pod %q not found in namespace %q", name, namespace)
}

// hasShortName says whether a pod is called so in its manifest.
func hasShortName(p *corev1.Pod, name string) bool {
	return p.Spec.NodeName != "" && p.Name == name+"-"+strings.ToLower(p.Spec.NodeName)
}

// watch calls f for each event until f fails, ctx ends or the agent stops.
func (c *client) watch(ctx context.Context, f func(server.PodEvent) error) error {
	body, err := c.do(ctx, http.MethodGet, agentURL(nil, "nodeagent/v1/watch"))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // broken off before the first pod, with which the answer begins
	case err != nil:
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var e server.PodEvent
		if err := dec.Decode(&e); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return fmt.Errorf("read pod watch: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

// container picks the container a command means: the named one, the pod's
// default-container annotation, or its first.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	if name == "" {
		name = pod.Annotations["kubectl.kubernetes.io/default-container"]
	}
	if name == "" {
		return pod.Spec.Containers[0].Name, nil
	}
	all := containerNames(pod)
	if !slices.Contains(all, name) {
		return "", fmt.Errorf("pod %s has no container %q; it has %s", pod.Name, name, strings.Join(all, ", "))
	}
	return name, nil
}

// containerNames are the names of all containers of a pod.
func containerNames(pod *corev1.Pod) []string {
	var all []string
	for _, c := range pod.Spec.InitContainers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.Containers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	return all
}
