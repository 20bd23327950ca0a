//go:build integration

package cri_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"github.com/nodeagent/nodeagent/internal/testimage"
	"github.com/nodeagent/nodeagent/internal/testregistry"
	"github.com/nodeagent/nodeagent/pkg/cri"
)

// site is a containerd and a real registry.
type site struct {
	containerd *cri.Embedded
	registry   *testregistry.Registry
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
	s := &site{containerd: &cri.Embedded{Dir: filepath.Join(dir, "containerd"), BinDirs: []string{bin}, Log: logTo(t)}}
	t.Cleanup(func() {
		if err := errors.Join(s.containerd.Stop(context.Background()), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	if err := s.containerd.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.registry = testregistry.Start(t)
	return s
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
func (s *site) push(t *testing.T, name string) testimage.Content {
	t.Helper()
	data := make([]byte, 12<<20)
	_, _ = rand.Read(data) // containerd shares content among its namespaces
	return s.registry.Push(t, testimage.Image{Name: name, Files: map[string]testimage.File{"data": {Data: data, Mode: 0o644}}})
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
