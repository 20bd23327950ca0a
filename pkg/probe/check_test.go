package probe

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// expected is what an answer should be: its remark holds all of the texts.
type expected struct {
	ok    bool
	error string // the question cannot be put
	texts []string
}

func (e expected) check(t *testing.T, reason string, a answer, err error) {
	t.Helper()
	switch {
	case e.error != "" && (err == nil || !strings.Contains(err.Error(), e.error)):
		t.Errorf("%s: want an error with %q, got %+v and error %v", reason, e.error, a, err)
	case e.error == "" && (err != nil || a.ok != e.ok):
		t.Errorf("%s: want ok %t, got %+v and error %v", reason, e.ok, a, err)
	case e.ok && len(e.texts) == 0 && a.remark != "":
		t.Errorf("%s: want no warning, got %q", reason, a.remark)
	}
	for _, text := range e.texts {
		if !strings.Contains(a.remark, text) {
			t.Errorf("%s: want %q in %q", reason, text, a.remark)
		}
	}
	if len(a.remark) > maxBody+200 {
		t.Errorf("%s: a remark of %d bytes", reason, len(a.remark))
	}
}

// ask checks a container whose pod is this machine.
func ask(t *testing.T, p *corev1.Probe, ports ...corev1.ContainerPort) (answer, error) {
	t.Helper()
	m := New(Deps{PodIP: func(types.UID) string { return "127.0.0.1" }})
	if p.TimeoutSeconds == 0 {
		p.TimeoutSeconds = 60
	}
	return m.check(t.Context(), &container{spec: &corev1.Container{Name: "main", Ports: ports}}, p)
}

func portOfServer(t *testing.T, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// site answers under paths that say what it does.
func site(elsewhere string) http.Handler {
	mux := http.NewServeMux()
	code := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "the body", n) }
	}
	for path, n := range map[string]int{"/200": 200, "/399": 399, "/400": 400, "/500": 500} {
		mux.HandleFunc(path, code(n))
	}
	mux.Handle("/here", http.RedirectHandler("/200", http.StatusFound))
	mux.Handle("/here-to-500", http.RedirectHandler("/500", http.StatusFound))
	mux.Handle("/round", http.RedirectHandler("/round", http.StatusFound))
	mux.Handle("/there", http.RedirectHandler("http://probe.invalid/", http.StatusFound))
	mux.Handle("/other-port", http.RedirectHandler(elsewhere, http.StatusFound))
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot) // a failure shows its body
		_, _ = w.Write([]byte("host=" + r.Host + " agent=" + strings.Join(r.Header["User-Agent"], "+") +
			" accept=" + strings.Join(r.Header["Accept"], "+") + " x=" + strings.Join(r.Header["X-Two"], "+") + " query=" + r.URL.RawQuery))
	})
	return mux
}

func TestHTTP(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer other.Close()
	server, secure := httptest.NewServer(site(other.URL)), httptest.NewUnstartedServer(site(other.URL))
	secure.Config.ErrorLog = log.New(t.Output(), "", 0)
	secure.StartTLS()
	defer server.Close()
	defer secure.Close()
	cases := map[string]struct {
		reason  string
		get     corev1.HTTPGetAction
		secure  bool
		timeout int32
		want    expected
	}{
		"Lowest":      {"200 is success", corev1.HTTPGetAction{Path: "/200"}, false, 0, expected{ok: true}},
		"Highest":     {"399 is success, if a strange one", corev1.HTTPGetAction{Path: "/399"}, false, 0, expected{ok: true, texts: []string{"the body"}}},
		"TooHigh":     {"400 is a failure", corev1.HTTPGetAction{Path: "/400"}, false, 0, expected{texts: []string{"HTTP probe failed with statuscode: 400", "the body"}}},
		"ServerError": {"500 is a failure", corev1.HTTPGetAction{Path: "/500"}, false, 0, expected{texts: []string{"statuscode: 500"}}},
		"NotFound":    {"so is what is not there", corev1.HTTPGetAction{Path: "/nothing"}, false, 0, expected{texts: []string{"statuscode: 404"}}},
		"NoSlash":     {"a path needs no slash", corev1.HTTPGetAction{Path: "200"}, false, 0, expected{ok: true}},
		"BadEscape":   {"a path that is no URL is used as it stands", corev1.HTTPGetAction{Path: "/%zz"}, false, 0, expected{texts: []string{"statuscode: 404"}}},
		"Query":       {"a path may have a query", corev1.HTTPGetAction{Path: "/echo?a=b"}, false, 0, expected{texts: []string{"query=a=b"}}},
		"HTTPS":       {"nobody vouches for a pod's certificate", corev1.HTTPGetAction{Path: "/200", Scheme: corev1.URISchemeHTTPS}, true, 0, expected{ok: true}},
		"PlainToTLS":  {"the scheme must be right", corev1.HTTPGetAction{Path: "/200"}, true, 0, expected{texts: []string{"statuscode: 400"}}},
		"TLSToPlain":  {"in both directions", corev1.HTTPGetAction{Path: "/200", Scheme: corev1.URISchemeHTTPS}, false, 0, expected{texts: []string{"HTTP response to HTTPS client"}}},
		"Redirect":    {"a redirect on the same host is followed", corev1.HTTPGetAction{Path: "/here"}, false, 0, expected{ok: true}},
		"RedirectBad": {"and it is the end that counts", corev1.HTTPGetAction{Path: "/here-to-500"}, false, 0, expected{texts: []string{"statuscode: 500"}}},
		"Loop":        {"but not for ever", corev1.HTTPGetAction{Path: "/round"}, false, 0, expected{texts: []string{"too many redirects"}}},
		"Elsewhere":   {"a redirect to another host is an answer, with a warning", corev1.HTTPGetAction{Path: "/there"}, false, 0, expected{ok: true, texts: []string{`Probe terminated redirects, Response body: <a href="http://probe.invalid/">Found</a>.`}}},
		"OtherPort":   {"another port of the same host is not another host", corev1.HTTPGetAction{Path: "/other-port"}, false, 0, expected{ok: true}},
		"Endless":     {"only so much of a body is read", corev1.HTTPGetAction{Path: "/endless"}, false, 0, expected{texts: []string{"statuscode: 500"}}},
		"Silent":      {"who does not answer in time fails", corev1.HTTPGetAction{Path: "/silent"}, false, 1, expected{texts: []string{"deadline exceeded"}}},
		"Defaults":    {"we say who we are", corev1.HTTPGetAction{Path: "/echo"}, false, 0, expected{texts: []string{"agent=" + userAgent + " ", "accept=*/* "}}},
		"Headers": {"headers of the probe replace ours, and one may be there twice", corev1.HTTPGetAction{Path: "/echo", HTTPHeaders: []corev1.HTTPHeader{
			{Name: "Host", Value: "web.example"}, {Name: "user-agent", Value: "mine"}, {Name: "Accept", Value: "text/plain"}, {Name: "X-Two", Value: "1"}, {Name: "X-Two", Value: "2"},
		}}, false, 0, expected{texts: []string{"host=web.example agent=mine accept=text/plain x=1+2"}}},
		"NoHeaders": {"an empty one takes ours away", corev1.HTTPGetAction{Path: "/echo", HTTPHeaders: []corev1.HTTPHeader{
			{Name: "User-Agent"}, {Name: "Accept"},
		}}, false, 0, expected{texts: []string{"agent= accept= "}}},
		"Host":      {"the probe may name another host, which is then the failure", corev1.HTTPGetAction{Path: "/200", Host: "127.0.0.2", Port: intstr.FromInt32(1)}, false, 0, expected{texts: []string{"127.0.0.2:1", "refused"}}},
		"NamedPort": {"a port may be named", corev1.HTTPGetAction{Path: "/200", Port: intstr.FromString("web")}, false, 0, expected{ok: true}},
		"NoSuchPort": {"a port that is not there cannot be asked", corev1.HTTPGetAction{Path: "/200", Port: intstr.FromString("nope")}, false, 0,
			expected{error: `no port named "nope"`}},
		"NoPort": {"nor one that cannot be", corev1.HTTPGetAction{Path: "/200", Port: intstr.FromInt32(70000)}, false, 0, expected{error: "70000 is not a port number"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			address := server.URL
			if tc.secure {
				address = secure.URL
			}
			port := portOfServer(t, address)
			if tc.get.Port == (intstr.IntOrString{}) {
				tc.get.Port = intstr.FromInt(port)
			}
			a, err := ask(t, &corev1.Probe{TimeoutSeconds: tc.timeout, ProbeHandler: corev1.ProbeHandler{HTTPGet: &tc.get}},
				corev1.ContainerPort{Name: "web", ContainerPort: int32(port)})
			tc.want.check(t, tc.reason, a, err)
		})
	}
}

func TestProxiesAreNotUsed(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.2:1")
	t.Setenv("http_proxy", "http://127.0.0.2:1")
	if transport, ok := probeClient("x").Transport.(*http.Transport); !ok || transport.Proxy != nil {
		t.Error("a probe goes straight to its pod")
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.Parse(port)}}}
	a, err := ask(t, probe)
	expected{ok: true}.check(t, "who listens is well, even if it never accepts", a, err)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a, err = ask(t, probe)
	expected{texts: []string{"refused"}}.check(t, "who does not is not", a, err)
}

func TestGRPC(t *testing.T) {
	serve := func(register func(*grpc.Server)) int32 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		register(s)
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		t.Cleanup(func() {
			s.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		return int32(portOfServer(t, "http://"+l.Addr().String()))
	}
	h := health.NewServer()
	h.SetServingStatus("up", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthy := serve(func(s *grpc.Server) { healthpb.RegisterHealthServer(s, h) })
	bare := serve(func(*grpc.Server) {})
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	cases := map[string]struct {
		reason  string
		port    int32
		service *string
		want    expected
	}{
		"Server":    {"a server answers for itself", healthy, nil, expected{ok: true}},
		"Service":   {"or for a service", healthy, new("up"), expected{ok: true}},
		"Down":      {"which may be down", healthy, new("down"), expected{texts: []string{"service unhealthy", "NOT_SERVING"}}},
		"Unknown":   {"or not there", healthy, new("nope"), expected{texts: []string{"NotFound"}}},
		"NoHealth":  {"a server without the health service cannot be well", bare, nil, expected{texts: []string{"does not implement the gRPC health protocol"}}},
		"NotGRPC":   {"nor can one that speaks something else", int32(portOfServer(t, plain.URL)), nil, expected{texts: []string{"Unavailable"}}},
		"NotThere":  {"nor one that is not there", 1, nil, expected{texts: []string{"refused"}}},
		"EmptyName": {"an empty name is the server itself", healthy, new(""), expected{ok: true}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a, err := ask(t, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: tc.port, Service: tc.service}}})
			tc.want.check(t, tc.reason, a, err)
		})
	}
}

func TestExec(t *testing.T) {
	cases := map[string]struct {
		reason string
		code   int
		out    string
		err    error
		want   expected
	}{
		"Zero":    {"an exit code of zero is success, whatever is printed", 0, "trouble", nil, expected{ok: true}},
		"Other":   {"any other is a failure, and the output says why", 3, "no such file\n", nil, expected{texts: []string{"command exited with 3: no such file"}}},
		"Timeout": {"taking too long is a failure", 0, "", context.DeadlineExceeded, expected{texts: []string{"command timed out after 7s"}}},
		"Broken":  {"a runtime that cannot run the command tells nothing of the container", 0, "", errors.New("containerd is away"), expected{error: "containerd is away"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var asked string
			m := New(Deps{Exec: func(_ context.Context, id string, cmd []string, timeout time.Duration) (int, []byte, error) {
				asked = id + " " + strings.Join(cmd, " ") + " " + timeout.String()
				return tc.code, []byte(tc.out), tc.err
			}})
			a, err := m.check(t.Context(), &container{id: "c1", spec: &corev1.Container{}},
				&corev1.Probe{TimeoutSeconds: 7, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/ok"}}}})
			tc.want.check(t, tc.reason, a, err)
			if asked != "c1 cat /ok 7s" {
				t.Errorf("asked %q", asked)
			}
		})
	}
}

func TestNothingToAsk(t *testing.T) {
	m := New(Deps{PodIP: func(types.UID) string { return "" }})
	c := &container{spec: &corev1.Container{}}
	a, err := m.check(t.Context(), c, &corev1.Probe{TimeoutSeconds: 1})
	expected{error: "names no handler"}.check(t, "a probe without a handler", a, err)
	a, err = m.check(t.Context(), c, &corev1.Probe{TimeoutSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}})
	expected{error: "no address yet"}.check(t, "a pod without an address", a, err)
}
