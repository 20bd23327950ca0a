package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestImage reads an archive as a runtime would: from the index by processor to
// the files and the entry point.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificates := write("certificates", "authorities")
	binaries := []string{"amd64=" + write("a", "for amd64"), "arm64=" + write("b", "for arm64")}
	first, second := filepath.Join(dir, "1", "image.tar"), filepath.Join(dir, "2", "image.tar")
	for _, out := range []string{first, second} {
		if err := build(out, "nodeagent.dev/nodeagent:v1", "v1", certificates, binaries); err != nil {
			t.Fatal(err)
		}
	}
	archive, again := read(t, first), read(t, second)
	if !bytes.Equal(archive, again) {
		t.Error("two builds of the same files differ")
	}
	blobs := untar(t, archive)
	top := decode[ocispec.Index](t, blobs["index.json"])
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "nodeagent.dev/nodeagent:v1" {
		t.Errorf("the image is called %q", got)
	}
	var archs []string
	for _, m := range decode[ocispec.Index](t, blob(blobs, top.Manifests[0])).Manifests {
		archs = append(archs, m.Platform.Architecture)
		manifest := decode[ocispec.Manifest](t, blob(blobs, m))
		config := decode[ocispec.Image](t, blob(blobs, manifest.Config))
		if diff := cmp.Diff([]string{"/usr/local/bin/nodeagent"}, config.Config.Entrypoint); diff != "" {
			t.Errorf("entry point, -want +got:\n%s", diff)
		}
		if config.Architecture != m.Platform.Architecture || config.Config.Labels[ocispec.AnnotationVersion] != "v1" || config.Created.Unix() != 0 {
			t.Errorf("%s: configuration %+v", m.Platform.Architecture, config)
		}
		files := untar(t, gunzip(t, blob(blobs, manifest.Layers[0])))
		if got := string(files["usr/local/bin/nodeagent"]); got != "for "+m.Platform.Architecture {
			t.Errorf("%s: the binary is %q", m.Platform.Architecture, got)
		}
		if got := string(files["etc/ssl/certs/ca-certificates.crt"]); got != "authorities" {
			t.Errorf("%s: certificates are %q", m.Platform.Architecture, got)
		}
	}
	if !slices.Equal(archs, []string{"amd64", "arm64"}) {
		t.Errorf("the image is for %v", archs)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func blob(blobs map[string][]byte, d ocispec.Descriptor) []byte {
	return blobs["blobs/sha256/"+d.Digest.Encoded()]
}

func decode[T any](t *testing.T, data []byte) T {
	t.Helper()
	var out T
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
	return out
}

func untar(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
