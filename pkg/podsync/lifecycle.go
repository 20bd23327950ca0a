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
)

const (
	maxHookOutput    = 10 << 10
	maxHookRedirects = 10
)

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
	u = u.ResolveReference(&url.URL{Path: ref.Path, RawPath: ref.RawPath, RawQuery: ref.RawQuery}) // never another host
	err = httpGet(ctx, u, get.HTTPHeaders)
	if errors.Is(err, http.ErrSchemeMismatch) {
		u.Scheme = "http" // as the kubelet does, which once knew nothing else
		err = httpGet(ctx, u, get.HTTPHeaders)
	}
	return err
}

// httpGet succeeds when the server answers at all: as in the kubelet a hook is a
// message, and neither the status that comes back nor the server's certificate
// is looked at. A redirect leads nowhere but to the same host.
func httpGet(ctx context.Context, u *url.URL, headers []corev1.HTTPHeader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-lifecycle/nodeagent")
	for _, h := range headers {
		if strings.EqualFold(h.Name, "User-Agent") {
			req.Header.Del(h.Name)
		}
		req.Header.Add(h.Name, h.Value)
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != u.Hostname() || len(via) >= maxHookRedirects {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if _, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxHookOutput)); err != nil {
		err = fmt.Errorf("read answer: %w", err)
	}
	return errors.Join(err, resp.Body.Close())
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
func (w *worker) postStart(ctx context.Context, s PostStart) error {
	pod := w.current()
	c := specOf(pod, s.Container)
	err := w.hook(ctx, c.Lifecycle.PostStart, c, s.ID)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		w.warnOf(c.Name, "FailedPostStartHook", "PostStartHook failed: %v", err)
		return w.stopContainer(ctx, StopContainer{Container: c.Name, ID: s.ID, Grace: gracePeriod(pod), Why: "FailedPostStartHook"})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rec.PostStarted[s.ID] = true
	w.dirty = true
	return nil
}

// stopContainer runs the preStop hook and stops the container; both share the
// grace period, of which the container gets minGrace in any case.
func (w *worker) stopContainer(ctx context.Context, s StopContainer) error {
	w.noteOf(s.Container, "Killing", "%s", s.Why)
	if s.Resize {
		w.mu.Lock()
		w.rec.Replace[s.ID], w.dirty = Replace{Why: "is resized", Resize: true}, true
		w.mu.Unlock()
		w.poke() // it shall be written down before the container has ended
	}
	began := time.Now()
	if s.Grace > 0 {
		if err := w.preStop(ctx, PreStop{Container: s.Container, ID: s.ID, Grace: s.Grace}); err != nil {
			return err
		}
	}
	grace := s.Grace - time.Since(began)
	if err := w.cfg.Runtime.StopContainer(ctx, s.ID, max(grace, minGrace)); err != nil {
		return fmt.Errorf("stop container %s: %w", s.Container, err)
	}
	return nil
}

// preStop runs the hook, if there is one, once in the life of a container,
// however often the stop is tried; only a new agent repeats one that was broken
// off. Its failure is told and changes nothing.
func (w *worker) preStop(ctx context.Context, s PreStop) error {
	c := specOf(w.current(), s.Container)
	if !hasPreStop(c) {
		return nil
	}
	w.mu.Lock()
	begun := w.facts.hooked[s.ID] || w.rec.PreStopped[s.ID]
	w.facts.hooked[s.ID] = true
	w.mu.Unlock()
	if begun {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, s.Grace)
	defer cancel()
	err := w.hook(limited, c.Lifecycle.PreStop, c, s.ID)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		w.warnOf(s.Container, "FailedPreStopHook", "PreStopHook failed: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rec.PreStopped[s.ID] = true
	w.dirty = true
	return nil
}
