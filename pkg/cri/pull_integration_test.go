//go:build integration

package cri_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/credential"
	"github.com/nodeagent/nodeagent/pkg/cri"
)

// TestPull pulls from a real registry into a real containerd.
func TestPull(t *testing.T) {
	s := newSite(t)
	for name, test := range map[string]func(*testing.T, *site){
		"TagAndDigest": pullTagAndDigest, "Policies": pullPolicies, "Credentials": pullCredentials, "Provider": pullProvider, "DockerConfig": pullDockerConfig,
		"Mirror": pullMirror, "Progress": pullProgress, "Cancelled": pullCancelled, "Stalled": pullStalled, "Shared": pullShared,
		"Serial": pullSerial, "Corrupt": pullCorrupt, "BadNames": pullBadNames, "BehindOurBack": removedBehindOurBack,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

func reasonOf(err error) string {
	if e := (*cri.ImageError)(nil); errors.As(err, &e) {
		return e.Reason
	}
	return fmt.Sprint(err)
}

func must(t *testing.T, m *cri.Images, req cri.ImageRequest) cri.Image {
	t.Helper()
	image, err := m.EnsureImage(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func pullTagAndDigest(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	built := s.push(t, "demo/tag:1")
	byDigest := g.Host + "/demo/tag@" + built.Manifest.Digest.String()
	m, _ := s.images(t, nil)
	tagged := must(t, m, cri.ImageRequest{Ref: g.Host + "/demo/tag:1", Policy: corev1.PullIfNotPresent})
	if want := []string{byDigest}; len(tagged.RepoDigests) != 1 || tagged.RepoDigests[0] != want[0] {
		t.Errorf("digests of an image pulled by tag: got %v, want %v", tagged.RepoDigests, want)
	}
	digested := must(t, m, cri.ImageRequest{Ref: byDigest, Policy: corev1.PullNever})
	if digested.ID != tagged.ID || digested.ID == "" {
		t.Errorf("the same image by its digest has ID %q, by its tag %q", digested.ID, tagged.ID)
	}
	fresh, _ := s.images(t, nil)
	if got := must(t, fresh, cri.ImageRequest{Ref: byDigest, Policy: corev1.PullIfNotPresent}); got.ID != tagged.ID || len(got.RepoTags) != 0 {
		t.Errorf("pulled by digest: got %+v, want the same image without a tag", got)
	}
}

func pullPolicies(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	s.push(t, "demo/policy:1")
	m, _ := s.images(t, nil)
	request := func(p corev1.PullPolicy) cri.ImageRequest {
		return cri.ImageRequest{Ref: g.Host + "/demo/policy:1", Policy: p}
	}
	if _, err := m.EnsureImage(t.Context(), request(corev1.PullNever)); reasonOf(err) != cri.ErrImageNeverPull {
		t.Errorf("Never, and nothing is there: got %v", err)
	}
	first := must(t, m, request(corev1.PullIfNotPresent))
	s.push(t, "demo/policy:1")
	asked := len(g.Requests())
	for _, p := range []corev1.PullPolicy{corev1.PullIfNotPresent, corev1.PullNever} {
		if got := must(t, m, request(p)); got.ID != first.ID || len(g.Requests()) != asked {
			t.Errorf("%s, and it is there: the registry was asked", p)
		}
	}
	second := must(t, m, request(corev1.PullAlways))
	if second.ID == first.ID {
		t.Error("Always does not see that the tag has moved")
	}
	if got := must(t, m, request(corev1.PullNever)); got.ID != second.ID {
		t.Error("what Always has fetched is not what the others see")
	}
}

func pullCredentials(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.User, g.Password = "anna", "secret"
	s.push(t, "demo/private:1")
	m, _ := s.images(t, nil)
	req := cri.ImageRequest{Ref: g.Host + "/demo/private:1", Policy: corev1.PullIfNotPresent}
	if _, err := m.EnsureImage(t.Context(), req); reasonOf(err) != cri.ErrImagePull || !strings.Contains(err.Error(), "authorization") {
		t.Errorf("without credentials: got %v", err)
	}
	req.Credentials = []cri.Credential{{Username: "anna", Password: "wrong"}}
	if _, err := m.EnsureImage(t.Context(), req); reasonOf(err) != cri.ErrImagePull || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong credentials must fail and not be told: got %v", err)
	}
	req.Credentials = append(req.Credentials, cri.Credential{Username: "anna", Password: "secret"})
	must(t, m, req)
}

// pullProvider has a program of this machine say who may pull.
func pullProvider(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.User, g.Password = "anna", "secret"
	s.push(t, "demo/provided:1")
	dir := t.TempDir()
	host, _, _ := strings.Cut(g.Host, ":")
	write(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf(`{"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [
		{"name": "helper", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": [%q], "defaultCacheDuration": "1m"}]}`, host))
	write(t, filepath.Join(dir, "helper"), fmt.Sprintf(`#!/bin/sh
echo called >>%s/calls
echo '{"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse", "cacheKeyType": "Image", "cacheDuration": "0s",
	"auth": {%q: {"username": "anna", "password": "secret"}}}'
`, dir, g.Host))
	if err := os.Chmod(filepath.Join(dir, "helper"), 0o755); err != nil {
		t.Fatal(err)
	}
	providers, err := credential.Load(filepath.Join(dir, "config.yaml"), dir)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := s.images(t, nil)
	req := cri.ImageRequest{Ref: g.Host + "/demo/provided:1", Policy: corev1.PullIfNotPresent}
	req.More = func(ctx context.Context) ([]cri.Credential, error) {
		found, err := providers.Credentials(ctx, req.Ref, nil)
		var out []cri.Credential
		for _, c := range found {
			out = append(out, cri.Credential(c))
		}
		return out, err
	}
	must(t, m, req)
	must(t, m, req)
	if calls, err := os.ReadFile(filepath.Join(dir, "calls")); err != nil || string(calls) != "called\n" {
		t.Errorf("the program was run for %q, %v, want it once: for the pull, and not for an image that is there", calls, err)
	}
	req.Ref = g.Host + "/demo/none:1"
	req.More = func(context.Context) ([]cri.Credential, error) { return nil, errors.New("the program is broken") }
	if _, err := m.EnsureImage(t.Context(), req); err == nil || !strings.Contains(err.Error(), "the program is broken") {
		t.Errorf("error is %v, want to be told why there was no credential", err)
	}
}

func pullDockerConfig(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.User, g.Password = "anna", "secret"
	s.push(t, "demo/config:1")
	file := filepath.Join(t.TempDir(), "config.json")
	m, _ := s.images(t, func(c *cri.ImagesConfig) { c.DockerConfig = file })
	req := cri.ImageRequest{Ref: g.Host + "/demo/config:1", Policy: corev1.PullIfNotPresent, Credentials: []cri.Credential{{Username: "x", Password: "y"}}}
	write(t, file, "{")
	if _, err := m.EnsureImage(t.Context(), req); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a broken file is not named: %v", err)
	}
	auth := base64.StdEncoding.EncodeToString([]byte("anna:secret"))
	write(t, file, fmt.Sprintf(`{"auths": {"http://%s/v1/": {"auth": %q}, "elsewhere": {"auth": "%%"}}}`, g.Host, auth))
	must(t, m, req)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func pullMirror(t *testing.T, s *site) {
	s.push(t, "demo/mirror:1")
	for name, dir := range map[string]string{"Default": "_default", "Own": "registry.invalid"} {
		t.Run(name, func(t *testing.T) {
			g := s.registry.Gateway(t, nil)
			general, special := t.TempDir(), t.TempDir()
			hosts := fmt.Sprintf("[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", g.Host)
			write(t, filepath.Join(general, "_default", "hosts.toml"), "[host.\"http://127.0.0.1:1\"]\n")
			write(t, filepath.Join(special, dir, "hosts.toml"), hosts)
			dirs := []string{general, special}
			if dir == "_default" {
				dirs = []string{special}
			}
			m, _ := s.images(t, func(c *cri.ImagesConfig) { c.HostsDirs = dirs })
			image := must(t, m, cri.ImageRequest{
				Ref: "registry.invalid/demo/mirror:1", Policy: corev1.PullIfNotPresent, Credentials: []cri.Credential{{Username: "anna", Password: "secret"}},
			})
			if image.Name != "registry.invalid/demo/mirror:1" {
				t.Errorf("the image is called %s", image.Name)
			}
			for _, r := range g.Requests() {
				if r.Header.Get("Authorization") != "" {
					t.Errorf("a mirror was sent the credentials of the registry: %s %s", r.Method, r.URL)
				}
			}
		})
	}
}

func pullProgress(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.Open = make(chan struct{})
	built := s.push(t, "demo/slow:1")
	var size int64
	for _, b := range built.Blobs {
		size += int64(len(b))
	}
	m, _ := s.images(t, nil)
	calls, halfway := 0, false
	must(t, m, cri.ImageRequest{Ref: g.Host + "/demo/slow:1", Policy: corev1.PullIfNotPresent, Progress: func(done, total int64) {
		calls++
		if calls == 1 && done != 0 {
			t.Errorf("a pull begins with %d bytes", done)
		}
		if done > 1<<20 && done < total && !halfway {
			halfway = true
			if total != size {
				t.Errorf("of %d bytes, want %d", total, size)
			}
			close(g.Open)
		}
	}})
	if !halfway {
		t.Error("nobody was told that half of the image was there")
	}
}

func pullCancelled(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.Open = make(chan struct{})
	s.push(t, "demo/cancel:1")
	m, _ := s.images(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := m.EnsureImage(ctx, cri.ImageRequest{Ref: g.Host + "/demo/cancel:1", Policy: corev1.PullIfNotPresent})
		result <- err
	}()
	<-g.Halfway
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-g.Gone
	close(g.Open)
	must(t, m, cri.ImageRequest{Ref: g.Host + "/demo/cancel:1", Policy: corev1.PullIfNotPresent})
}

func pullStalled(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.Open = make(chan struct{})
	s.push(t, "demo/stall:1")
	m, _ := s.images(t, func(c *cri.ImagesConfig) { c.StallTimeout = 2 * time.Second })
	_, err := m.EnsureImage(t.Context(), cri.ImageRequest{Ref: g.Host + "/demo/stall:1", Policy: corev1.PullIfNotPresent})
	if reasonOf(err) != cri.ErrImagePull || !strings.Contains(err.Error(), "no data received for 2s") {
		t.Errorf("got %v", err)
	}
}

func pullShared(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.Open = make(chan struct{})
	s.push(t, "demo/shared:1")
	m, _ := s.images(t, nil)
	type waiter struct {
		told   chan struct{}
		result chan error
	}
	start := func(ctx context.Context) waiter {
		w := waiter{told: make(chan struct{}, 1000), result: make(chan error, 1)}
		go func() {
			_, err := m.EnsureImage(ctx, cri.ImageRequest{Ref: g.Host + "/demo/shared:1", Policy: corev1.PullIfNotPresent, Progress: func(_, total int64) {
				if total > 0 {
					w.told <- struct{}{}
				}
			}})
			w.result <- err
		}()
		return w
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := start(ctx)
	<-first.told
	second := start(t.Context())
	<-second.told // of the pull that the first one began
	cancel()
	if err := <-first.result; !errors.Is(err, context.Canceled) {
		t.Errorf("the first, whose pod was deleted: got %v", err)
	}
	close(g.Open)
	if err := <-second.result; err != nil {
		t.Errorf("the second: %v", err)
	}
	if n := g.Asked("GET", "/manifests/"); n != 1 {
		t.Errorf("the manifest was fetched %d times", n)
	}
}

func pullSerial(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.Open = make(chan struct{})
	s.push(t, "demo/serial-a:1")
	s.push(t, "demo/serial-b:1")
	m, _ := s.images(t, func(c *cri.ImagesConfig) { c.MaxParallelPulls = 1 })
	results := make(chan error, 2)
	pull := func(name string, begun chan struct{}) {
		_, err := m.EnsureImage(t.Context(), cri.ImageRequest{Ref: g.Host + "/demo/" + name + ":1", Policy: corev1.PullIfNotPresent, Progress: func(int64, int64) {
			select {
			case begun <- struct{}{}:
			default:
			}
		}})
		results <- err
	}
	begun := make(chan struct{}, 1)
	go pull("serial-a", nil)
	<-g.Halfway
	go pull("serial-b", begun)
	<-begun // it waits in the line now
	select {
	case path := <-g.Halfway:
		t.Errorf("%s is pulled beside the first", path)
	case <-time.After(500 * time.Millisecond): // long enough to see it if it were wrong
	}
	close(g.Open)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func pullCorrupt(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	g.Corrupt = true
	s.push(t, "demo/corrupt:1")
	m, _ := s.images(t, nil)
	req := cri.ImageRequest{Ref: g.Host + "/demo/corrupt:1", Policy: corev1.PullIfNotPresent}
	if _, err := m.EnsureImage(t.Context(), req); reasonOf(err) != cri.ErrImagePull || !strings.Contains(err.Error(), "digest") {
		t.Errorf("got %v", err)
	}
	if list, err := m.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a broken image is there: %v %v", list, err)
	}
	g.Corrupt = false
	must(t, m, req)
}

func pullBadNames(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	m, _ := s.images(t, nil)
	for ref, want := range map[string]string{
		"docker.io/UPPER": cri.ErrInvalidImageName, "a b": cri.ErrInvalidImageName, g.Host + "/demo/none:1": cri.ErrImagePull, "127.0.0.1:1/demo/none:1": cri.ErrImagePull,
	} {
		if _, err := m.EnsureImage(t.Context(), cri.ImageRequest{Ref: ref, Policy: corev1.PullIfNotPresent}); reasonOf(err) != want || !strings.Contains(err.Error(), ref) {
			t.Errorf("%s: got %v, want %s", ref, err, want)
		}
	}
}

func removedBehindOurBack(t *testing.T, s *site) {
	g := s.registry.Gateway(t, nil)
	s.push(t, "demo/gone:1")
	m, client := s.images(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	image := must(t, m, cri.ImageRequest{Ref: g.Host + "/demo/gone:1", Policy: corev1.PullIfNotPresent})
	if err := client.ImageService().Delete(t.Context(), image.Name, images.SynchronousDelete()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removed image to be missed", func() bool {
		_, err := m.EnsureImage(t.Context(), cri.ImageRequest{Ref: image.Name, Policy: corev1.PullNever})
		return reasonOf(err) == cri.ErrImageNeverPull
	})
}
