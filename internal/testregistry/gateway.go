package testregistry

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"
)

// half is how much of a layer comes before the gateway meddles with it.
const half = 6 << 20

// Gateway passes requests on to a registry. What is set before the first request
// may not be changed while one is under way.
type Gateway struct {
	// Host is the address that images are named after.
	Host string
	// User and Password are asked for unless empty.
	User, Password string
	// Corrupt changes a byte of each layer.
	Corrupt bool
	// Open, if not nil, is waited for in the middle of each layer. With Drip the
	// rest of the layer comes meanwhile, a piece in each such time.
	Open chan struct{}
	Drip time.Duration
	// Halfway gets the path of each layer that is waited for, Gone of each that
	// the client did not wait for.
	Halfway, Gone chan string

	mu       sync.Mutex // guards requests
	requests []*http.Request
}

// Gateway listens on l, which is any free port of loopback if nil.
func (r *Registry) Gateway(t *testing.T, l net.Listener) *Gateway {
	t.Helper()
	g := &Gateway{Halfway: make(chan string, 100), Gone: make(chan string, 100)}
	proxy := httputil.NewSingleHostReverseProxy(r.base)
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.requests = append(g.requests, r.Clone(context.Background()))
		g.mu.Unlock()
		if user, password, _ := r.BasicAuth(); user != g.User || password != g.Password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(&meddler{ResponseWriter: w, gateway: g, request: r}, r)
	}))
	server.Config.ErrorLog = proxy.ErrorLog
	if l != nil {
		_ = server.Listener.Close()
		server.Listener = l
	}
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections() // a test that failed has not opened the gate
		server.Close()
	})
	g.Host = strings.TrimPrefix(server.URL, "http://")
	return g
}

// Requests are those that came so far.
func (g *Gateway) Requests() []*http.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*http.Request(nil), g.requests...)
}

// Asked counts requests of a method whose path contains part.
func (g *Gateway) Asked(method, part string) int {
	n := 0
	for _, r := range g.Requests() {
		if r.Method == method && strings.Contains(r.URL.Path, part) {
			n++
		}
	}
	return n
}

// meddler stands between the registry's answer and the client.
type meddler struct {
	http.ResponseWriter
	gateway *Gateway
	request *http.Request
	sent    int
}

func (m *meddler) Write(p []byte) (int, error) {
	first := m.sent < half
	m.sent += len(p)
	if m.sent < half {
		return m.ResponseWriter.Write(p)
	}
	if first && m.gateway.Corrupt {
		p = bytes.Clone(p)
		p[0] ^= 0xff
	}
	if m.gateway.Open != nil && (first || m.gateway.Drip > 0) {
		if err := m.wait(first); err != nil {
			return 0, err
		}
	}
	return m.ResponseWriter.Write(p)
}

func (m *meddler) wait(first bool) error {
	m.ResponseWriter.(http.Flusher).Flush()
	if first {
		m.gateway.Halfway <- m.request.URL.Path
	}
	var drip <-chan time.Time
	if m.gateway.Drip > 0 {
		drip = time.After(m.gateway.Drip)
	}
	select {
	case <-m.gateway.Open:
	case <-drip:
	case <-m.request.Context().Done():
		m.gateway.Gone <- m.request.URL.Path
		return m.request.Context().Err()
	}
	return nil
}
