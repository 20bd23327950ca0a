// Package testregistry runs a real registry for tests, with a gateway before it
// that can be slow, strict or broken. It needs Debian's docker-registry.
//
//	client ─► Gateway (asks for a password, holds layers, spoils them) ─► Registry
package testregistry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testimage"
)

// Registry runs on loopback; it ends with the test.
type Registry struct{ base *url.URL }

// Start runs a registry on a free port of this machine.
func Start(t *testing.T) *Registry {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), l.Addr().String()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, address)
	file := filepath.Join(dir, "config.yml")
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
	r := &Registry{base: &url.URL{Scheme: "http", Host: address}}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("registry: %v\n%s", err, output.Bytes())
		default:
		}
		answer, err := http.Get(r.base.String() + "/v2/")
		if err == nil {
			_ = answer.Body.Close()
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("the registry does not answer: %v", err)
		}
	}
}

// Push puts an image into the registry.
func (r *Registry) Push(t *testing.T, i testimage.Image) testimage.Content {
	t.Helper()
	built, err := testimage.Build(i)
	if err != nil {
		t.Fatal(err)
	}
	repository, tag, _ := strings.Cut(i.Name, ":")
	to := r.base.String() + "/v2/" + repository
	for d, blob := range built.Blobs {
		if d == built.Manifest.Digest {
			continue
		}
		upload, err := send(t, http.MethodPost, to+"/blobs/uploads/", "", nil).Location()
		if err != nil {
			t.Fatal(err)
		}
		upload.RawQuery += "&digest=" + d.String()
		send(t, http.MethodPut, upload.String(), "application/octet-stream", blob)
	}
	send(t, http.MethodPut, to+"/manifests/"+tag, built.Manifest.MediaType, built.Blobs[built.Manifest.Digest])
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
