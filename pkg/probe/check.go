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
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	maxBody      = 10 << 10 // bytes of an answer that are read
	maxRedirects = 10
	userAgent    = "kube-probe/nodeagent"
)

// answer is what a container said of itself. A remark on what is ok is a warning.
type answer struct {
	ok     bool
	remark string
}

// no is a failure. Whatever keeps a container from answering is one, too.
func no(format string, args ...any) (answer, error) {
	return answer{remark: fmt.Sprintf(format, args...)}, nil
}

// check asks once. An error says that the question could not be put, which tells
// nothing of the container.
func (m *Manager) check(ctx context.Context, c *container, p *corev1.Probe) (answer, error) {
	timeout := time.Duration(p.TimeoutSeconds) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch h := p.ProbeHandler; {
	case h.Exec != nil:
		return m.checkExec(ctx, c, h.Exec.Command, timeout)
	case h.HTTPGet != nil:
		return m.checkHTTP(ctx, c, h.HTTPGet)
	case h.TCPSocket != nil:
		return m.checkTCP(ctx, c, h.TCPSocket)
	case h.GRPC != nil:
		return m.checkGRPC(ctx, c, h.GRPC)
	default:
		return answer{}, errors.New("the probe names no handler")
	}
}

func (m *Manager) checkExec(ctx context.Context, c *container, cmd []string, timeout time.Duration) (answer, error) {
	code, out, err := m.deps.Exec(ctx, c.id, cmd, timeout)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return no("command timed out after %s", timeout)
	case err != nil:
		return answer{}, err
	case code != 0:
		return no("command exited with %d: %s", code, strings.TrimSpace(string(out)))
	default:
		return answer{ok: true}, nil
	}
}

// address is where a network probe goes: the pod, unless the probe names a host.
func (m *Manager) address(c *container, host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		if host = m.deps.PodIP(c.uid); host == "" {
			return "", errors.New("the pod has no address yet")
		}
	}
	n, err := portOf(c.spec, port)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

// portOf looks a named port up in the container; a number may be written as text.
func portOf(c *corev1.Container, port intstr.IntOrString) (int, error) {
	n := port.IntValue() // 0 of what is not a number
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
		if n == 0 {
			return 0, fmt.Errorf("the container has no port named %q", port.StrVal)
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("%d is not a port number", n)
	}
	return n, nil
}

// dialer makes connections that leave nothing behind: closing one does not keep
// its port busy for a minute, which would add up over many probes.
func dialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
		})
		return errors.Join(err, refused)
	}}
}

func (m *Manager) checkHTTP(ctx context.Context, c *container, h *corev1.HTTPGetAction) (answer, error) {
	address, err := m.address(c, h.Host, h.Port)
	if err != nil {
		return answer{}, err
	}
	req, err := request(ctx, h, address)
	if err != nil {
		return answer{}, err
	}
	resp, err := probeClient(req.URL.Hostname()).Do(req)
	if err != nil {
		return no("%v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch text := strings.TrimSpace(string(body)); {
	case err != nil:
		return no("read answer: %v", err)
	case resp.StatusCode < 200 || resp.StatusCode >= 400:
		return no("HTTP probe failed with statuscode: %d: %s", resp.StatusCode, text)
	case resp.StatusCode >= 300:
		return answer{ok: true, remark: "Probe terminated redirects, Response body: " + text}, nil
	default:
		return answer{ok: true}, nil
	}
}

// request asks for what the probe says. A header of the probe replaces ours of
// that name, and an empty one takes it away.
func request(ctx context.Context, h *corev1.HTTPGetAction, address string) (*http.Request, error) {
	u, err := url.Parse(h.Path)
	if err != nil {
		u = &url.URL{Path: h.Path} // as it stands, percent signs and all
	}
	u.Scheme, u.Host = "http", address
	if h.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, header := range h.HTTPHeaders {
		req.Header.Add(header.Name, header.Value)
		if strings.EqualFold(header.Name, "Host") {
			req.Host = header.Value
		}
	}
	for name, value := range map[string]string{"User-Agent": userAgent, "Accept": "*/*"} {
		switch have, set := req.Header[name]; {
		case !set:
			req.Header.Set(name, value)
		case name == "Accept" && have[0] == "":
			req.Header.Del(name)
		}
	}
	return req, nil
}

// probeClient keeps no connection, uses no proxy and trusts any certificate: it
// asks whether the server answers, not who it is. A redirect to another host is
// an answer and is not followed.
func probeClient(host string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:       dialer().DialContext,
			DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != host {
				return http.ErrUseLastResponse
			}
			if len(via) >= maxRedirects {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
}

func (m *Manager) checkTCP(ctx context.Context, c *container, h *corev1.TCPSocketAction) (answer, error) {
	address, err := m.address(c, h.Host, h.Port)
	if err != nil {
		return answer{}, err
	}
	conn, err := dialer().DialContext(ctx, "tcp", address)
	if err != nil {
		return no("%v", err)
	}
	_ = conn.Close() // it was accepted, and that was the question
	return answer{ok: true}, nil
}

func (m *Manager) checkGRPC(ctx context.Context, c *container, h *corev1.GRPCAction) (answer, error) {
	address, err := m.address(c, "", intstr.FromInt32(h.Port))
	if err != nil {
		return answer{}, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithUserAgent(userAgent),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { // and no proxy
			return dialer().DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	service := ""
	if h.Service != nil {
		service = *h.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return no("the server does not implement the gRPC health protocol (grpc.health.v1.Health): %v", err)
	case err != nil:
		return no("%v", err)
	case resp.Status != healthpb.HealthCheckResponse_SERVING:
		return no("service unhealthy (responded with %q)", resp.Status)
	default:
		return answer{ok: true}, nil
	}
}
