package podsync

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

const maxHookOutput = 10 << 10

// hook runs one lifecycle handler of a running container.
func (w *worker) hook(ctx context.Context, h *corev1.LifecycleHandler, c *corev1.Container, id string) error {
	switch {
	case h.Exec != nil:
		code, out, err := w.cfg.Runtime.ExecSync(ctx, id, h.Exec.Command, 0)
		if err == nil && code != 0 {
			err = fmt.Errorf("exited with %d: %q", code, truncate(out))
		}
		if err != nil {
			return fmt.Errorf("exec %q: %w", h.Exec.Command, err)
		}
		return nil
	case h.HTTPGet != nil:
		return w.httpHook(ctx, h.HTTPGet, c)
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		}
	default:
		return errors.New("this kind of hook is not supported")
	}
}

func truncate(b []byte) []byte { return b[:min(len(b), maxHookOutput)] }

func (w *worker) httpHook(ctx context.Context, get *corev1.HTTPGetAction, c *corev1.Container) error {
	host := get.Host
	if host == "" {
		observed, _ := w.cfg.Runtime.Pod(w.uid)
		ips := podIPs(w.current(), observed.Sandbox, w.cfg.NodeIPs)
		if len(ips) == 0 {
			return errors.New("the pod has no address to ask")
		}
		host = ips[0]
	}
	port, err := portOf(get.Port, c)
	if err != nil {
		return err
	}
	ref, err := url.Parse(get.Path)
	if err != nil {
		return fmt.Errorf("parse path: %w", err)
	}
	u := &url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(port)), Path: "/"}
	if get.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	return httpGet(ctx, u.ResolveReference(ref).String(), get.HTTPHeaders)
}

// httpGet succeeds when the server answers at all with less than 400. As in the
// kubelet the server's certificate is not checked: the address is the pod's.
func httpGet(ctx context.Context, address string, headers []corev1.HTTPHeader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	for _, h := range headers {
		req.Header.Add(h.Name, h.Value)
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHookOutput))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("answered %s: %q", resp.Status, body)
	}
	return nil
}

func portOf(p intstr.IntOrString, c *corev1.Container) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, named := range c.Ports {
		if named.Name == p.StrVal {
			return int(named.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
}

// postStart runs a container's hook. A hook that fails ends the container; what
// happens then is for its restart policy to say.
func (w *worker) postStart(ctx context.Context, pod *corev1.Pod, c *corev1.Container, started cri.Container) error {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	err := w.hook(ctx, c.Lifecycle.PostStart, c, started.ID)
	if err == nil || ctx.Err() != nil {
		return err
	}
	w.warn("FailedPostStartHook", "PostStartHook failed: %v", err)
	w.note("Killing", "FailedPostStartHook")
	if err := w.cfg.Runtime.StopContainer(ctx, started.ID, gracePeriod(pod)); err != nil {
		return fmt.Errorf("stop after failed postStart hook: %w", err)
	}
	return nil
}

// stopContainer runs the preStop hook and stops the container; both share the
// grace period, of which the container gets minGrace in any case.
func (w *worker) stopContainer(ctx context.Context, s StopContainer) error {
	w.note("Killing", "%s", s.Why)
	grace := s.Grace
	if c := specOf(w.current(), s.Container); c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		began := time.Now()
		if err := w.preStop(ctx, c, s); err != nil {
			return err
		}
		grace -= time.Since(began)
	}
	if err := w.cfg.Runtime.StopContainer(ctx, s.ID, max(grace, minGrace)); err != nil {
		return fmt.Errorf("stop container %s: %w", s.Container, err)
	}
	return nil
}

// preStop runs the hook once in the life of a container, however often the stop
// is tried. Its failure is told and changes nothing.
func (w *worker) preStop(ctx context.Context, c *corev1.Container, s StopContainer) error {
	done := false
	w.learn(func(f *facts) {
		done = f.hooked[s.ID]
		f.hooked[s.ID] = true
	})
	if done {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, s.Grace)
	defer cancel()
	err := w.hook(limited, c.Lifecycle.PreStop, c, s.ID)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		w.warn("FailedPreStopHook", "PreStopHook failed: %v", err)
	}
	return nil
}
