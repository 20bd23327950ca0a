package probe

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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	maxBody      = 10 << 10 // bytes of an answer that are read
	maxRedirects = 10
)

// check asks once. A nil error is success; anything else says why not.
func (m *Manager) check(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(t.probe.TimeoutSeconds)*time.Second)
	defer cancel()
	switch h := t.probe.ProbeHandler; {
	case h.Exec != nil:
		return m.checkExec(ctx, t, h.Exec.Command)
	case h.HTTPGet != nil:
		return m.checkHTTP(ctx, t, h.HTTPGet)
	case h.TCPSocket != nil:
		return m.checkTCP(ctx, t, h.TCPSocket)
	case h.GRPC != nil:
		return m.checkGRPC(ctx, t, h.GRPC)
	default:
		return errors.New("the probe names no handler")
	}
}

func (m *Manager) checkExec(ctx context.Context, t *target, cmd []string) error {
	code, out, err := m.deps.Exec(ctx, t.id, cmd, time.Duration(t.probe.TimeoutSeconds)*time.Second)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("command timed out after %ds", t.probe.TimeoutSeconds)
		}
		return err
	}
	if code != 0 {
		return fmt.Errorf("command exited with %d: %s", code, strings.TrimSpace(string(out)))
	}
	return nil
}

// address is where a network probe goes: the pod, unless the probe names a host.
func (m *Manager) address(t *target, host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		if host = m.deps.PodIP(t.uid); host == "" {
			return "", errors.New("the pod has no address yet")
		}
	}
	n := port.IntValue()
	if port.Type == intstr.String {
		n = 0
		for _, p := range t.ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
		if n == 0 {
			if n, _ = strconv.Atoi(port.StrVal); n == 0 {
				return "", fmt.Errorf("the container has no port named %q", port.StrVal)
			}
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

func (m *Manager) checkHTTP(ctx context.Context, t *target, h *corev1.HTTPGetAction) error {
	address, err := m.address(t, h.Host, h.Port)
	if err != nil {
		return err
	}
	u, err := url.Parse(h.Path)
	if err != nil {
		return fmt.Errorf("path %q: %w", h.Path, err)
	}
	u.Scheme, u.Host = strings.ToLower(string(h.Scheme)), address
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/nodeagent")
	req.Header.Set("Accept", "*/*")
	for _, header := range h.HTTPHeaders {
		req.Header.Add(header.Name, header.Value)
		if strings.EqualFold(header.Name, "Host") {
			req.Host = header.Value
		}
	}
	resp, err := probeClient(address).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d: %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	return nil
}

// probeClient keeps no connection, uses no proxy and trusts any certificate: it
// asks whether the server answers, not who it is. A redirect to another host is
// an answer and is not followed.
func probeClient(address string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Host != address {
				return http.ErrUseLastResponse
			}
			if len(via) >= maxRedirects {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
}

func (m *Manager) checkTCP(ctx context.Context, t *target, h *corev1.TCPSocketAction) error {
	address, err := m.address(t, h.Host, h.Port)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (m *Manager) checkGRPC(ctx context.Context, t *target, h *corev1.GRPCAction) error {
	address, err := m.address(t, "", intstr.FromInt32(h.Port))
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	service := ""
	if h.Service != nil {
		service = *h.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	if resp.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", resp.Status)
	}
	return nil
}
