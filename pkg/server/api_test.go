package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// sign makes a certificate; change may spoil it.
func (a *authority) sign(t *testing.T, user string, groups []string, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: user, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// reviewer stands for the API server: tokens and grants by user.
type reviewer struct {
	tokens map[string]string
	grants map[string][]string // "verb subresource"
	down   atomic.Bool
	asked  atomic.Int64
}

func (f *reviewer) token(_ context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	f.asked.Add(1)
	if f.down.Load() {
		return nil, errors.New("connection refused")
	}
	if user, ok := f.tokens[r.Spec.Token]; ok {
		r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: user}}
	}
	return r, nil
}

func (f *reviewer) access(_ context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	f.asked.Add(1)
	if f.down.Load() {
		return nil, errors.New("connection refused")
	}
	a := r.Spec.ResourceAttributes
	if a.Resource != "nodes" || a.Name != "node-1" || a.Version != "v1" || !slices.Contains(r.Spec.Groups, "system:authenticated") {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("asked for something else: %+v", r.Spec))
	}
	r.Status.Allowed = slices.Contains(f.grants[r.Spec.User], a.Verb+" "+a.Subresource)
	return r, nil
}

// cluster is an API on loopback with who may call it.
type cluster struct {
	address  string
	ca       *authority
	reviewer *reviewer
	api      *API
	caFile   string
}

func newCluster(t *testing.T, funcs Funcs) *cluster {
	t.Helper()
	ca := newAuthority(t, "cluster")
	c := &cluster{ca: ca, reviewer: &reviewer{tokens: map[string]string{}, grants: map[string][]string{}}, caFile: filepath.Join(t.TempDir(), "ca.crt")}
	if err := os.WriteFile(c.caFile, ca.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	serving := ca.sign(t, "node-1", nil, nil)
	c.api = &API{
		Funcs: funcs, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serving, nil },
		Auth: Auth{
			NodeName: "node-1", ClientCAFile: c.caFile, TokenReview: c.reviewer.token, AccessReview: c.reviewer.access,
			TokenTTL: 2 * time.Minute, AllowTTL: 5 * time.Minute, DenyTTL: 30 * time.Second,
		},
		StreamIdle: time.Hour, Log: quiet(),
	}
	return c
}

// run serves until the test is over.
func (c *cluster) run(t *testing.T) *cluster {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.address = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.api.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("API ended with %v", err)
		}
	})
	return c
}

// transport connects with a certificate, or without one.
func (c *cluster) transport(t *testing.T, cert *tls.Certificate) *http.Transport {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	tr := &http.Transport{TLSClientConfig: cfg}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// everything is a node that can do all there is.
func everything() Funcs {
	doc := func(context.Context) (any, error) { return "doc", nil }
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
	say := func(_ context.Context, s Session) error {
		_, err := io.WriteString(s.Stdout, "output")
		return err
	}
	return Funcs{
		Pods: func(context.Context) (*corev1.PodList, error) { return &corev1.PodList{}, nil },
		Logs: func(_ context.Context, _ LogQuery, out, _ io.Writer) error {
			_, err := io.WriteString(out, "line\n")
			return err
		},
		Exec:    say,
		Attach:  say,
		Restart: func(context.Context, string, string, string) error { return nil },
		PortForward: func(_ context.Context, _ Target, _ int32, s io.ReadWriteCloser) error {
			_, err := io.Copy(s, s)
			return err
		},
		Summary: func(context.Context, bool) (any, error) { return "summary", nil },
		Inspect: func(context.Context, string, string) (any, error) { return "inspect", nil },
		Events:  func(context.Context, string, string) (*corev1.EventList, error) { return &corev1.EventList{}, nil },
		Config:  doc, RunningPods: doc, Cgroups: doc, Images: doc, Problems: doc, Node: doc,
		Metrics: page, ResourceMetrics: page, ProbeMetrics: page, ContainerMetrics: page,
	}
}

// TestContract compares every route, method and kind of upgrade with what a caller
// needs for it: any other single grant must not do.
func TestContract(t *testing.T) {
	spdy := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"v4.channel.k8s.io", "portforward.k8s.io"}}
	ws := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"v4.channel.k8s.io"}}
	const logs, exec = "/containerLogs/ns/pod/c", "?command=ls&output=1"
	requests := []struct {
		method, path string
		header       http.Header
		needs        []string // any of these
		code         int      // for who has it
	}{
		{"GET", "/healthz", nil, []string{"get healthz", "get proxy"}, 200},
		{"HEAD", "/healthz", nil, []string{"get healthz", "get proxy"}, 200},
		{"GET", "/healthz/syncloop", nil, []string{"get healthz", "get proxy"}, 200},
		{"GET", "/pods", nil, []string{"get pods", "get proxy"}, 200},
		{"GET", "/pods/", nil, []string{"get pods", "get proxy"}, 200},
		{"GET", "/runningpods/", nil, []string{"get pods", "get proxy"}, 200},
		{"GET", "/configz", nil, []string{"get configz", "get proxy"}, 200},
		{"GET", "/metrics", nil, []string{"get metrics"}, 200},
		{"GET", "/metrics/resource", nil, []string{"get metrics"}, 200},
		{"GET", "/metrics/probes", nil, []string{"get metrics"}, 200},
		{"GET", "/metrics/cadvisor", nil, []string{"get metrics"}, 200},
		{"GET", "/stats/summary", nil, []string{"get stats"}, 200},
		{"GET", logs, nil, []string{"get proxy"}, 200},
		{"POST", "/exec/ns/pod/c" + exec, spdy, []string{"create proxy"}, 101},
		{"GET", "/exec/ns/pod/c" + exec, spdy, []string{"create proxy"}, 101},
		{"GET", "/exec/ns/pod/c" + exec, ws, []string{"create proxy"}, 101},
		{"POST", "/exec/ns/pod/uid/c" + exec, spdy, []string{"create proxy"}, 101},
		{"POST", "/attach/ns/pod/c?output=1", spdy, []string{"create proxy"}, 101},
		{"GET", "/attach/ns/pod/c?output=1", ws, []string{"create proxy"}, 101},
		{"POST", "/run/ns/pod/c?cmd=ls", nil, []string{"create proxy"}, 200},
		{"POST", "/portForward/ns/pod", spdy, []string{"create proxy"}, 101},
		{"GET", "/portForward/ns/pod?port=80", ws, []string{"create proxy"}, 101},
		{"GET", "/exec/ns/pod/c" + exec, nil, []string{"create proxy"}, 400},
		{"GET", "/nodeagent/v1/cgroups", nil, []string{"get proxy"}, 200},
		{"POST", "/nodeagent/v1/restart/ns/pod", nil, []string{"create proxy"}, 204},
	}
	c := newCluster(t, everything()).run(t)
	var grants []string
	for _, verb := range []string{"get", "create", "update"} {
		for _, s := range []string{"proxy", "metrics", "stats", "log", "pods", "healthz", "configz", ""} {
			grant := verb + " " + s
			user := "may " + grant
			grants = append(grants, grant)
			c.reviewer.tokens[strings.ReplaceAll(user, " ", "/")] = user
			c.reviewer.grants[user] = []string{grant}
		}
	}
	client := &http.Client{Transport: c.transport(t, nil), CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		return fmt.Errorf("sent elsewhere: %s", r.URL)
	}}
	ask := func(method, path, token string, header http.Header) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header.Clone()
		if req.Header == nil {
			req.Header = http.Header{}
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		if header != nil && resp.StatusCode != 101 && !resp.Close {
			t.Errorf("%s %s: the connection of an upgrade that failed stays open", method, path)
		}
		return resp.StatusCode
	}
	for _, r := range requests {
		t.Run(r.method+" "+strings.ReplaceAll(r.path, "/", " ")+" "+r.header.Get("Upgrade"), func(t *testing.T) {
			if code := ask(r.method, r.path, "", r.header); code != 401 {
				t.Errorf("without a credential: %d", code)
			}
			if code := ask(r.method, r.path, "guess", r.header); code != 401 {
				t.Errorf("with a token that is nobody's: %d", code)
			}
			for _, grant := range grants {
				want := 403
				if slices.Contains(r.needs, grant) {
					want = r.code
				}
				if code := ask(r.method, r.path, "may/"+strings.ReplaceAll(grant, " ", "/"), r.header); code != want {
					t.Errorf("who may %s: %d, want %d", grant, code, want)
				}
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	c := newCluster(t, everything()).run(t)
	other := newAuthority(t, "other")
	c.reviewer.grants["boss"] = []string{"get healthz"}
	cases := map[string]struct {
		reason string
		cert   *tls.Certificate
		code   int
	}{
		"Good":     {"signed by the cluster's CA", c.ca.sign(t, "boss", []string{"g"}, nil), 200},
		"WrongCA":  {"anybody can sign", other.sign(t, "boss", nil, nil), 401},
		"Expired":  {"its time is over", c.ca.sign(t, "boss", nil, func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }), 401},
		"Usage":    {"a server's certificate is no client's", c.ca.sign(t, "boss", nil, func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), 401},
		"Nobody":   {"it must say whose it is", c.ca.sign(t, "", []string{"g"}, nil), 401},
		"Stranger": {"known, and may nothing", c.ca.sign(t, "somebody", nil, nil), 403},
		"None":     {"TLS asks for one, and goes on without", nil, 401},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			resp, err := (&http.Client{Transport: c.transport(t, tc.cert)}).Get("https://" + c.address + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tc.code {
				t.Errorf("%s: got %d, want %d", tc.reason, resp.StatusCode, tc.code)
			}
			if resp.ProtoMajor != 1 || resp.TLS.DidResume {
				t.Errorf("got %s, resumed %t: want HTTP/1.1 and a full handshake", resp.Proto, resp.TLS.DidResume)
			}
		})
	}
}

func TestClientCAIsReplaced(t *testing.T) {
	c := newCluster(t, everything())
	c.api.Auth.AccessReview = nil
	c.run(t)
	next := newAuthority(t, "next")
	get := func(cert *tls.Certificate) int {
		t.Helper()
		resp, err := (&http.Client{Transport: c.transport(t, cert)}).Get("https://" + c.address + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	before, after := c.ca.sign(t, "boss", nil, nil), next.sign(t, "boss", nil, nil)
	if got := []int{get(before), get(after)}; !slices.Equal(got, []int{200, 401}) {
		t.Errorf("with the first CA: %v", got)
	}
	if err := os.WriteFile(c.caFile, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := []int{get(before), get(after)}; !slices.Equal(got, []int{200, 401}) {
		t.Errorf("a file that is being written leaves the last one in force: %v", got)
	}
	if err := os.WriteFile(c.caFile, next.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := []int{get(before), get(after)}; !slices.Equal(got, []int{401, 200}) {
		t.Errorf("with the next CA: %v", got)
	}
}

// TestRawRequests are those that a client library would not send.
func TestRawRequests(t *testing.T) {
	c := newCluster(t, everything())
	c.reviewer.tokens["t"] = "root"
	c.api.Auth.AccessReview = nil
	c.run(t)
	const auth = "Host: n\r\nAuthorization: Bearer t\r\n\r\n"
	cases := map[string]struct {
		reason, request string
		code            int
	}{
		"DoubleSlash":  {"the path is taken as it stands", "GET //healthz HTTP/1.1\r\n" + auth, 400},
		"Dots":         {"nobody is sent elsewhere", "GET /metrics/../pods HTTP/1.1\r\n" + auth, 400},
		"Dot":          {"nor this way", "GET /./pods HTTP/1.1\r\n" + auth, 400},
		"EncodedSlash": {"a slash is a slash", "GET /containerLogs/ns%2fpod/c/d HTTP/1.1\r\n" + auth, 400},
		"EncodedDots":  {"and dots are dots", "GET /%2e%2e/pods HTTP/1.1\r\n" + auth, 400},
		"Encoded":      {"no name needs it", "GET /p%6fds HTTP/1.1\r\n" + auth, 400},
		"Absolute":     {"it is no proxy", "GET http://elsewhere/pods HTTP/1.1\r\n" + auth, 400},
		"Connect":      {"nor a tunnel", "CONNECT elsewhere:80 HTTP/1.1\r\n" + auth, 400},
		"Method":       {"methods that mean nothing", "DELETE /pods HTTP/1.1\r\n" + auth, 405},
		"Odd":          {"or that nobody knows", "FROB /exec/ns/pod/c HTTP/1.1\r\n" + auth, 405},
		"Unknown":      {"what there is not", "GET /debug/pprof/ HTTP/1.1\r\n" + auth, 404},
		"LogFiles":     {"off", "GET /logs/ HTTP/1.1\r\n" + auth, 404},
		"Checkpoint":   {"never", "POST /checkpoint/ns/pod/c HTTP/1.1\r\n" + auth, 404},
		"LocalWatch":   {"only for the socket", "GET /nodeagent/v1/watch HTTP/1.1\r\n" + auth, 404},
		"LongBody":     {"nothing here has a use for one", "POST /run/ns/pod/c?cmd=ls HTTP/1.1\r\nContent-Length: 10000000\r\n" + auth, 413},
		"LongHeader":   {"memory is not a caller's to take", "GET /healthz HTTP/1.1\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n" + auth, 431},
		"UnknownPath":  {"who is nobody learns nothing", "GET /nonsense HTTP/1.1\r\nHost: n\r\n\r\n", 401},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", c.address, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tc.request); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tc.code || resp.Header.Get("Location") != "" {
				t.Errorf("%s: got %s %v, want %d", tc.reason, resp.Status, resp.Header, tc.code)
			}
		})
	}
}
