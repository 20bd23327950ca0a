package cri

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// fetch pulls an image with every credential in turn, as long as it is the
// credential that the registry refuses.
func (m *Images) fetch(ctx context.Context, ref string, given []Credential, progress func(done, total int64)) (Image, error) {
	stored, broken := dockerCredentials(m.cfg.DockerConfig, ref)
	candidates := append(append([]Credential(nil), given...), stored...)
	if len(candidates) == 0 {
		candidates = []Credential{{}}
	}
	var errs []error
	for _, c := range candidates {
		image, err := m.fetchWith(ctx, ref, c, progress)
		if err == nil {
			return image, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil || !refused(err) {
			break
		}
	}
	return Image{}, errors.Join(append(errs, broken)...)
}

// refused says whether another credential could do better. Registries hide what
// may not be seen behind "not found".
func refused(err error) bool {
	if status := (remoteerrors.ErrUnexpectedStatus{}); errors.As(err, &status) {
		switch status.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
			return true
		}
	}
	return errors.Is(err, docker.ErrInvalidAuthorization) || ignoreNotFound(err) == nil
}

func (m *Images) fetchWith(ctx context.Context, ref string, c Credential, progress func(done, total int64)) (Image, error) {
	resolver, err := m.resolver(ctx, ref, c)
	if err != nil {
		return Image{}, err
	}
	leased, release, err := m.lease(ctx)
	if err != nil {
		return Image{}, err
	}
	defer release()
	pulling, cancel := context.WithCancelCause(leased)
	defer cancel(nil)
	handler, descriptors := recordDescriptors()
	watched := make(chan map[string]int64, 1)
	go func() { watched <- m.watchPull(pulling, cancel, descriptors, progress) }()
	record, err := m.client.Pull(pulling, ref, containerd.WithPullUnpack, containerd.WithPullSnapshotter(m.cfg.Snapshotter),
		containerd.WithResolver(resolver), containerd.WithImageHandler(handler))
	if stalled := (*stalledError)(nil); err != nil && errors.As(context.Cause(pulling), &stalled) {
		err = stalled
	}
	cancel(nil)
	parts := <-watched
	if errdefs.IsFailedPrecondition(err) {
		err = errors.Join(err, m.discard(ctx, parts))
	}
	if err != nil {
		return Image{}, err
	}
	return m.learn(ctx, record)
}

// lease holds what a pull receives until its image does. containerd's client ends
// its own lease with the context of the pull: one that is given up would leave
// its parts on the disk for a day. Here they go at once.
func (m *Images) lease(ctx context.Context) (leased context.Context, release func(), err error) {
	leased, _, err = m.client.WithLease(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("make a lease: %w", err)
	}
	id, _ := leases.FromContext(leased)
	return leased, func() {
		var opts []leases.DeleteOpt
		if ctx.Err() != nil {
			opts = append(opts, leases.SynchronousDelete)
		}
		cleanup, cancel := detached(ctx)
		defer cancel()
		if err := m.client.LeasesService().Delete(cleanup, leases.Lease{ID: id}, opts...); ignoreNotFound(err) != nil {
			m.cfg.Log.Warn("the lease of a pull stays for a day", "err", err)
		}
	}, nil
}

// discard drops what was received whole and is not what was promised. The next
// pull would otherwise go on from its end, and fail for ever.
func (m *Images) discard(ctx context.Context, parts map[string]int64) error {
	store := m.client.ContentStore()
	statuses, err := store.ListStatuses(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range statuses {
		i := strings.Index(s.Ref, "sha256:")
		if i < 0 {
			continue
		}
		if size, ours := parts[s.Ref[i:]]; ours && s.Offset >= size {
			errs = append(errs, ignoreNotFound(store.Abort(ctx, s.Ref)))
		}
	}
	return errors.Join(errs...)
}

// resolver talks to registries with one credential, which is sent to no other
// host than the one that the image names: neither to mirrors nor to where a
// registry redirects.
func (m *Images) resolver(ctx context.Context, ref string, c Credential) (remotes.Resolver, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, err
	}
	own, err := docker.DefaultHost(reference.Domain(named))
	if err != nil {
		return nil, err
	}
	hosts := dockerconfig.ConfigureHosts(ctx, dockerconfig.HostOptions{
		HostDir: m.hostDir,
		Credentials: func(host string) (string, string, error) {
			switch {
			case host != own:
				return "", "", nil
			case c.IdentityToken != "":
				return "", c.IdentityToken, nil
			default:
				return c.Username, c.Password, nil
			}
		},
	})
	return docker.NewResolver(docker.ResolverOptions{Hosts: hosts}), nil
}

// hostDir finds the directory of a registry's hosts.toml. One that is made for
// the registry comes before any directory's _default.
func (m *Images) hostDir(host string) (string, error) {
	fallback := ""
	for _, root := range m.cfg.HostsDirs {
		dir, err := dockerconfig.HostDirFromRoot(root)(host)
		switch {
		case err != nil && ignoreNotFound(err) != nil:
			return "", err
		case err == nil && filepath.Base(dir) != "_default":
			return dir, nil
		case err == nil && fallback == "":
			fallback = dir
		}
	}
	return fallback, nil
}

func (m *Images) hasContent(ctx context.Context, d string) bool {
	_, err := m.client.ContentStore().Info(ctx, digest.Digest(d))
	return err == nil
}
