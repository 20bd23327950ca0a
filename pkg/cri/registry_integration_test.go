//go:build integration

package cri_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"github.com/nodeagent/nodeagent/internal/testimage"
	"github.com/nodeagent/nodeagent/pkg/cri"
)

// site is a containerd and a real registry, with a gateway of our own before it
// that can be slow, strict or broken.
type site struct {
	containerd *cri.Embedded
	dir        string
	registry   *url.URL
	count      int
}

// newSite starts both; they end with the test.
func newSite(t *testing.T) *site {
	t.Helper()
	bin, err := filepath.Abs("../../.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nareg") // not t.TempDir: paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: dir, containerd: &cri.Embedded{Dir: filepath.Join(dir, "containerd"), BinDirs: []string{bin}, Log: logTo(t)}}
	t.Cleanup(func() {
		if err := errors.Join(s.containerd.Stop(context.Background()), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	if err := s.containerd.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.registry = startRegistry(t, filepath.Join(dir, "registry"))
	return s
}

// startRegistry runs Debian's registry on a free port of this machine.
func startRegistry(t *testing.T, dir string) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, address)
	file := dir + ".yml"
	if err := errors.Join(os.WriteFile(file, []byte(config), 0o600), l.Close()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", file)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a registry (make test-integration installs it): %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := <-ended; err != nil {
			t.Log("registry:", err)
		}
	})
	base := &url.URL{Scheme: "http", Host: address}
	eventually(t, "the registry to answer", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("registry: %v\n%s", err, output.Bytes())
		default:
		}
		r, err := http.Get(base.String() + "/v2/")
		if err == nil {
			_ = r.Body.Close()
		}
		return err == nil
	})
	return base
}

// images is a store of its own: nothing that another pulled is in it.
func (s *site) images(t *testing.T, change func(*cri.ImagesConfig)) (*cri.Images, *containerd.Client) {
	t.Helper()
	s.count++
	client, err := containerd.New(s.containerd.Address(), containerd.WithDefaultNamespace(fmt.Sprintf("registry%d", s.count)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	cfg := cri.ImagesConfig{Snapshotter: "overlayfs", Log: logTo(t)}
	if change != nil {
		change(&cfg)
	}
	return cri.NewImages(client, cfg), client
}

// push puts an image that was never seen before into the registry.
func (s *site) push(t *testing.T, name string, change func(*testimage.Image)) testimage.Content {
	t.Helper()
	data := make([]byte, 12<<20)
	_, _ = rand.Read(data) // containerd shares content among its namespaces
	i := testimage.Image{Name: name, Files: map[string]testimage.File{"data": {Data: data, Mode: 0o644}}}
	if change != nil {
		change(&i)
	}
	built, err := testimage.Build(i)
	if err != nil {
		t.Fatal(err)
	}
	repository, tag, _ := strings.Cut(name, ":")
	for d, blob := range built.Blobs {
		if d == built.Manifest.Digest {
			continue
		}
		r := send(t, http.MethodPost, s.registry.String()+"/v2/"+repository+"/blobs/uploads/", "", nil)
		to, err := r.Location()
		if err != nil {
			t.Fatal(err)
		}
		to.RawQuery += "&digest=" + d.String()
		send(t, http.MethodPut, to.String(), "application/octet-stream", blob)
	}
	send(t, http.MethodPut, s.registry.String()+"/v2/"+repository+"/manifests/"+tag, built.Manifest.MediaType, built.Blobs[built.Manifest.Digest])
	return built
}

func send(t *testing.T, method, to, kind string, body []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, to, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode >= 300 {
		text, _ := io.ReadAll(r.Body)
		t.Fatalf("%s %s: %s: %s", method, to, r.Status, text)
	}
	return r
}

// gateway passes requests on to the registry.
type gateway struct {
	host string
	// user and password are asked for unless empty.
	user, password string
	// corrupt changes a byte of each layer.
	corrupt bool
	// open, if not nil, is waited for in the middle of each layer.
	open chan struct{}
	// halfway gets the path of each layer that is waited for, gone of each that
	// the client did not wait for.
	halfway, gone chan string

	mu       sync.Mutex // guards all below
	requests []*http.Request
}

func (s *site) gateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{halfway: make(chan string, 100), gone: make(chan string, 100)}
	proxy := httputil.NewSingleHostReverseProxy(s.registry)
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.requests = append(g.requests, r.Clone(context.Background()))
		g.mu.Unlock()
		if user, password, _ := r.BasicAuth(); user != g.user || password != g.password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(&meddler{ResponseWriter: w, gateway: g, request: r}, r)
	}))
	t.Cleanup(server.Close)
	g.host = strings.TrimPrefix(server.URL, "http://")
	return g
}

// asked counts requests of a method whose path contains part.
func (g *gateway) asked(method, part string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, r := range g.requests {
		if r.Method == method && strings.Contains(r.URL.Path, part) {
			n++
		}
	}
	return n
}

// meddler stands between the registry's answer and the client.
type meddler struct {
	http.ResponseWriter
	gateway *gateway
	request *http.Request
	sent    int
}

func (m *meddler) Write(p []byte) (int, error) {
	before := m.sent
	m.sent += len(p)
	if half := 6 << 20; before < half && m.sent >= half {
		if m.gateway.corrupt {
			p = bytes.Clone(p)
			p[0] ^= 0xff
		}
		if m.gateway.open != nil {
			m.ResponseWriter.(http.Flusher).Flush()
			m.gateway.halfway <- m.request.URL.Path
			select {
			case <-m.gateway.open:
			case <-m.request.Context().Done():
				m.gateway.gone <- m.request.URL.Path
				return 0, m.request.Context().Err()
			}
		}
	}
	return m.ResponseWriter.Write(p)
}

func logTo(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// eventually waits for something that happens by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
