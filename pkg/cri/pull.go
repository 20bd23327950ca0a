package cri

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// progressEvery is how often a pull's progress is looked at.
	progressEvery = time.Second
	// stallTimeout ends a pull that receives nothing.
	stallTimeout = 5 * time.Minute
)

var errStalled = fmt.Errorf("no data received for %s", stallTimeout)

// pullOnce pulls an image, or waits for the one who already does.
func (m *Images) pullOnce(ctx context.Context, ref string, req *ImageRequest) (Image, error) {
	credentials, err := json.Marshal(req.Credentials)
	if err != nil {
		return Image{}, err
	}
	key := ref + " " + string(credentials)
	for {
		m.mu.Lock()
		p, running := m.pulls[key]
		if !running {
			p = &pull{done: make(chan struct{})}
			m.pulls[key] = p
		}
		m.mu.Unlock()
		if !running {
			p.image, p.err = m.pull(ctx, ref, req)
			m.mu.Lock()
			delete(m.pulls, key)
			m.mu.Unlock()
			close(p.done)
			return p.image, p.err
		}
		select {
		case <-ctx.Done():
			return Image{}, ctx.Err()
		case <-p.done:
			if !errors.Is(p.err, context.Canceled) {
				return p.image, p.err
			}
			// The pod that pulled was deleted; this one still wants the image.
		}
	}
}

// pull tries every credential in turn.
func (m *Images) pull(ctx context.Context, ref string, req *ImageRequest) (Image, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return Image{}, err
	}
	stored, err := dockerCredentials(m.cfg.DockerConfig, named)
	if err != nil {
		return Image{}, err
	}
	candidates := append(append([]Credential(nil), req.Credentials...), stored...)
	candidates = append(candidates, Credential{}) // at last without any
	var errs []error
	for _, c := range candidates {
		image, err := m.pullWith(ctx, ref, c, req.Progress)
		if err == nil || ctx.Err() != nil {
			return image, err
		}
		errs = append(errs, err)
	}
	return Image{}, errors.Join(errs...)
}

func (m *Images) pullWith(ctx context.Context, ref string, c Credential, progress func(done, total int64)) (Image, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	handler, descriptors := recordDescriptors()
	go func() {
		defer close(watched)
		m.watchPull(ctx, cancel, descriptors, progress)
	}()
	record, err := m.client.Pull(ctx, ref, containerd.WithPullUnpack, containerd.WithPullSnapshotter(m.cfg.Snapshotter),
		containerd.WithResolver(m.resolver(c)), containerd.WithImageHandler(handler))
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		err = cause
	}
	cancel(nil)
	<-watched
	if err != nil {
		return Image{}, err
	}
	return m.learn(context.WithoutCancel(ctx), record)
}

// resolver talks to registries with one credential, which is sent to no other
// host than the one that the image names.
func (m *Images) resolver(c Credential) remotes.Resolver {
	options := dockerconfig.HostOptions{
		HostDir: func(host string) (string, error) {
			for _, dir := range m.cfg.HostsDirs {
				found, err := dockerconfig.HostDirFromRoot(dir)(host)
				if err == nil && found != "" {
					return found, nil
				}
			}
			return "", nil
		},
		DefaultScheme: "https",
		Credentials: func(string) (string, string, error) {
			if c.IdentityToken != "" {
				return "", c.IdentityToken, nil
			}
			return c.Username, c.Password, nil
		},
	}
	hosts := dockerconfig.ConfigureHosts(context.Background(), options)
	return docker.NewResolver(docker.ResolverOptions{Hosts: func(host string) ([]docker.RegistryHost, error) {
		out, err := hosts(host)
		for i := range out {
			if loopback(out[i].Host) && len(m.cfg.HostsDirs) == 0 {
				out[i].Scheme = "http" // a registry on this machine needs no certificate
			}
		}
		return out, err
	}})
}

func loopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// recordDescriptors is a handler that passes on what a pull consists of.
func recordDescriptors() (images.HandlerFunc, <-chan ocispec.Descriptor) {
	found := make(chan ocispec.Descriptor, 1024)
	return func(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		select {
		case found <- d:
		default: // more layers than anyone counts; progress is only a picture
		}
		return nil, nil
	}, found
}

// watchPull tells how far a pull is and ends one that stalls.
func (m *Images) watchPull(ctx context.Context, cancel context.CancelCauseFunc, found <-chan ocispec.Descriptor, progress func(done, total int64)) {
	var all []ocispec.Descriptor
	last, since := int64(-1), time.Now()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	if progress != nil {
		progress(0, 0)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-found:
			all = append(all, d)
			continue
		case <-tick.C:
		}
		done, total, complete := m.progressOf(ctx, all)
		if done != last || complete {
			last, since = done, time.Now()
			if progress != nil {
				progress(done, total)
			}
		}
		if time.Since(since) > stallTimeout {
			cancel(errStalled)
			return
		}
	}
}

// progressOf adds up what is there of the parts of an image, in bytes. complete
// says that nothing is missing but unpacking.
func (m *Images) progressOf(ctx context.Context, all []ocispec.Descriptor) (done, total int64, complete bool) {
	store := m.client.ContentStore()
	active := map[string]int64{}
	if statuses, err := store.ListStatuses(ctx); err == nil {
		for _, s := range statuses {
			active[s.Ref] = s.Offset
		}
	}
	for _, d := range all {
		total += d.Size
		if _, err := store.Info(ctx, d.Digest); err == nil {
			done += d.Size
			continue
		}
		for ref, offset := range active {
			if strings.Contains(ref, d.Digest.String()) {
				done += offset
				break
			}
		}
	}
	return done, total, total > 0 && done == total
}

// dockerCredentials finds what a docker config.json has for an image: the entry
// whose path is longest wins.
func dockerCredentials(path string, named reference.Named) ([]Credential, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read registry credentials: %w", err)
	}
	var file struct {
		Auths map[string]struct{ Username, Password, Auth, IdentityToken string }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("registry credentials %s: %w", path, err)
	}
	best, found := "", Credential{}
	for key, a := range file.Auths {
		if !matchRegistry(key, named) || len(key) < len(best) {
			continue
		}
		c := Credential{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}
		if a.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				return nil, fmt.Errorf("registry credentials %s: auth of %s: %w", path, key, err)
			}
			c.Username, c.Password, _ = strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		}
		best, found = key, c
	}
	if best == "" {
		return nil, nil
	}
	return []Credential{found}, nil
}

// matchRegistry says whether an entry of a docker configuration is for an image.
// Host parts may be patterns; a path matches as a prefix.
func matchRegistry(key string, named reference.Named) bool {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimSuffix(key, "/")
	if key == "index.docker.io/v1" || key == "index.docker.io" {
		key = "docker.io"
	}
	host, path, _ := strings.Cut(key, "/")
	domain := reference.Domain(named)
	if hostParts, domainParts := strings.Split(host, "."), strings.Split(domain, "."); len(hostParts) == len(domainParts) {
		for i := range hostParts {
			if ok, err := filepath.Match(hostParts[i], domainParts[i]); err != nil || !ok {
				return false
			}
		}
	} else {
		return false
	}
	path = strings.TrimPrefix(path, "v1")
	path = strings.TrimPrefix(path, "v2")
	image := reference.Path(named)
	return path == "" || image == path || strings.HasPrefix(image, path+"/")
}
