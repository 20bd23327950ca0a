package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/fsnotify/fsnotify"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
)

// Reasons why an image is not there, in the kubelet's words.
const (
	ErrImagePull        = "ErrImagePull"
	ErrImageNeverPull   = "ErrImageNeverPull"
	ErrInvalidImageName = "InvalidImageName"
)

// ImageError says why an image is not there.
type ImageError struct {
	Reason string
	Err    error
}

func (e *ImageError) Error() string { return e.Err.Error() }
func (e *ImageError) Unwrap() error { return e.Err }

// Credential is what a registry wants to know of the puller.
type Credential struct{ Username, Password, IdentityToken string }

// ImageRequest says which image is wanted.
type ImageRequest struct {
	Ref    string
	Policy corev1.PullPolicy
	// Credentials are tried in order, before those of the docker configuration.
	Credentials []Credential
	// Progress is told how many bytes of how many are there; it may be nil, and it
	// is not called for an image that is there already.
	Progress func(done, total int64)
}

// ImagesConfig says where images come from.
type ImagesConfig struct {
	Snapshotter string
	// HostsDirs hold hosts.toml files, DockerConfig credentials.
	HostsDirs    []string
	DockerConfig string
	// ImageDir holds archives that are imported when they appear; empty is none.
	ImageDir string
	// Arrived is called after an import: a pod may be waiting.
	Arrived func()
	Log     *slog.Logger
}

// Images keeps images present. Its methods are safe for concurrent use.
type Images struct {
	client *containerd.Client
	cfg    ImagesConfig

	tried map[string]string // archives by name, and their state; only Scan and then Run touch it

	mu    sync.Mutex // guards all below; never held across I/O
	cache map[string]Image
	pulls map[string]*pull // by reference and credential
}

// pull is one that is under way; others who want the same wait for it.
type pull struct {
	done  chan struct{}
	image Image
	err   error
}

// NewImages starts nothing; see Run.
func NewImages(client *containerd.Client, cfg ImagesConfig) *Images {
	return &Images{client: client, cfg: cfg, tried: map[string]string{}, cache: map[string]Image{}, pulls: map[string]*pull{}}
}

// EnsureImage makes an image present and unpacked, as its policy allows. Its
// errors are *ImageError.
func (m *Images) EnsureImage(ctx context.Context, req ImageRequest) (Image, error) {
	named, err := reference.ParseDockerRef(req.Ref)
	if err != nil {
		return Image{}, &ImageError{Reason: ErrInvalidImageName, Err: fmt.Errorf("image %q: %w", req.Ref, err)}
	}
	ref := named.String()
	if req.Policy != corev1.PullAlways {
		image, err := m.local(ctx, ref)
		if err == nil {
			return image, nil
		}
		if !errdefs.IsNotFound(err) {
			return Image{}, &ImageError{Reason: ErrImagePull, Err: err}
		}
		if req.Policy == corev1.PullNever {
			return Image{}, &ImageError{Reason: ErrImageNeverPull, Err: fmt.Errorf("container image %q is not present with pull policy of Never", req.Ref)}
		}
	}
	image, err := m.pullOnce(ctx, ref, &req)
	if err != nil {
		return Image{}, &ImageError{Reason: ErrImagePull, Err: fmt.Errorf("pull image %q: %w", req.Ref, err)}
	}
	return image, nil
}

// local is an image that is there; it is looked at once.
func (m *Images) local(ctx context.Context, ref string) (Image, error) {
	m.mu.Lock()
	image, known := m.cache[ref]
	m.mu.Unlock()
	if known {
		return image, nil
	}
	record, err := m.client.GetImage(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	return m.learn(ctx, record)
}

// learn unpacks an image if that has not been done, and remembers it.
func (m *Images) learn(ctx context.Context, record containerd.Image) (Image, error) {
	unpacked, err := record.IsUnpacked(ctx, m.cfg.Snapshotter)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", record.Name(), err)
	}
	if !unpacked {
		if err := record.Unpack(ctx, m.cfg.Snapshotter); err != nil {
			return Image{}, fmt.Errorf("unpack image %s: %w", record.Name(), err)
		}
	}
	image, err := describe(ctx, record)
	if err != nil {
		return Image{}, err
	}
	m.mu.Lock()
	m.cache[record.Name()] = image
	m.mu.Unlock()
	return image, nil
}

// describe reads what a container needs to know of an image.
func describe(ctx context.Context, record containerd.Image) (Image, error) {
	out := Image{Name: record.Name(), Pinned: record.Labels()["io.cri-containerd.pinned"] == "pinned"}
	diffIDs, err := record.RootFS(ctx)
	if err != nil {
		return out, fmt.Errorf("image %s: %w", record.Name(), err)
	}
	out.ChainID = identity.ChainID(diffIDs).String()
	config, err := record.Config(ctx)
	if err != nil {
		return out, fmt.Errorf("image %s: %w", record.Name(), err)
	}
	out.ID = config.Digest.String()
	data, err := content.ReadBlob(ctx, record.ContentStore(), config)
	if err != nil {
		return out, fmt.Errorf("configuration of image %s: %w", record.Name(), err)
	}
	var spec ocispec.Image
	if err := json.Unmarshal(data, &spec); err != nil {
		return out, fmt.Errorf("configuration of image %s: %w", record.Name(), err)
	}
	out.Config = spec.Config
	if out.Size, err = record.Size(ctx); err != nil {
		return out, fmt.Errorf("size of image %s: %w", record.Name(), err)
	}
	named, err := reference.ParseNormalizedNamed(record.Name())
	if err != nil {
		return out, nil // an image by ID has neither tag nor repository
	}
	out.RepoDigests = []string{named.Name() + "@" + record.Target().Digest.String()}
	if tagged, ok := named.(reference.NamedTagged); ok {
		out.RepoTags = []string{named.Name() + ":" + tagged.Tag()}
	}
	return out, nil
}

// List describes every image that is there.
func (m *Images) List(ctx context.Context) ([]Image, error) {
	records, err := m.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Image
	for _, r := range records {
		image, err := describe(ctx, r)
		if err != nil {
			m.cfg.Log.Warn("image cannot be described", "image", r.Name(), "err", err)
			continue
		}
		out = append(out, image)
	}
	return out, nil
}

// Remove removes an image; one that is not there is success.
func (m *Images) Remove(ctx context.Context, name string) error {
	m.mu.Lock()
	delete(m.cache, name)
	m.mu.Unlock()
	if err := ignoreNotFound(m.client.ImageService().Delete(ctx, name, images.SynchronousDelete())); err != nil {
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	return nil
}

// ImportArchive imports an OCI or docker archive and unpacks its images.
func (m *Images) ImportArchive(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	imported, err := m.client.Import(ctx, f, containerd.WithImportPlatform(platforms.Default()))
	if err != nil {
		return fmt.Errorf("import %s: %w", path, err)
	}
	if len(imported) == 0 {
		return fmt.Errorf("import %s: it names no image", path)
	}
	for _, i := range imported {
		if i, err = m.normalise(ctx, i); err != nil {
			return fmt.Errorf("import %s: %w", path, err)
		}
		if _, err := m.learn(ctx, containerd.NewImage(m.client, i)); err != nil {
			return fmt.Errorf("import %s: %w", path, err)
		}
		m.cfg.Log.Info("image imported", "image", i.Name, "file", path)
	}
	return nil
}

// normalise renames an image to the full form of its reference, which is what
// pods are matched against: demo/busybox:1 becomes docker.io/demo/busybox:1.
func (m *Images) normalise(ctx context.Context, i images.Image) (images.Image, error) {
	named, err := reference.ParseDockerRef(i.Name)
	if err != nil || named.String() == i.Name {
		return i, nil // a name that is no reference is kept as it is
	}
	old := i.Name
	i.Name = named.String()
	created, err := m.client.ImageService().Create(ctx, i)
	if errdefs.IsAlreadyExists(err) {
		created, err = m.client.ImageService().Update(ctx, i)
	}
	if err != nil {
		return i, err
	}
	return created, m.client.ImageService().Delete(ctx, old)
}

// rescanEvery is how often the image directory is read, should an event be lost.
const rescanEvery = 5 * time.Minute

// settle lets a writer of an archive finish before it is read.
const settle = 200 * time.Millisecond

// Scan imports the archives that are in the image directory now. An archive
// that cannot be imported is reported and does not fail the others.
func (m *Images) Scan(ctx context.Context) error {
	if m.cfg.ImageDir == "" {
		return nil
	}
	if err := os.MkdirAll(m.cfg.ImageDir, 0o755); err != nil {
		return err
	}
	m.scan(ctx)
	return nil
}

// Run imports archives from the image directory as they appear, until ctx ends.
func (m *Images) Run(ctx context.Context) error {
	if m.cfg.ImageDir == "" {
		<-ctx.Done()
		return nil
	}
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", m.cfg.ImageDir, err)
	}
	defer watch.Close()
	if err := watch.Add(m.cfg.ImageDir); err != nil {
		return fmt.Errorf("watch %s: %w", m.cfg.ImageDir, err)
	}
	for {
		if m.scan(ctx) {
			m.cfg.Arrived()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watch.Events:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		case err := <-watch.Errors:
			m.cfg.Log.Warn("watch of the image directory", "dir", m.cfg.ImageDir, "err", err)
		case <-time.After(rescanEvery):
		}
	}
}

// scan imports what is new or has changed, and reports whether there was any.
func (m *Images) scan(ctx context.Context) (arrived bool) {
	entries, err := os.ReadDir(m.cfg.ImageDir)
	if err != nil {
		m.cfg.Log.Error("read the image directory", "err", err)
		return false
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !isArchive(e.Name()) {
			continue
		}
		stamp := fmt.Sprint(info.Size(), info.ModTime().UnixNano())
		if m.tried[e.Name()] == stamp || ctx.Err() != nil {
			continue
		}
		m.tried[e.Name()] = stamp
		path := filepath.Join(m.cfg.ImageDir, e.Name())
		if m.imported(ctx, path, stamp) {
			continue
		}
		if err := errors.Join(m.ImportArchive(ctx, path), m.remember(ctx, path, stamp)); err != nil {
			m.cfg.Log.Error("image archive not imported", "err", err)
			continue
		}
		arrived = true
	}
	return arrived
}

func isArchive(name string) bool {
	return !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".tar") || strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz"))
}

// labelImported remembers on the namespace which state of an archive was imported.
const labelImported = labelPrefix + "imported."

func importLabel(path string) string {
	return labelImported + strings.Map(func(r rune) rune {
		if r == '.' || r == '=' {
			return '-'
		}
		return r
	}, filepath.Base(path))
}

func (m *Images) imported(ctx context.Context, path, stamp string) bool {
	ns := m.client.DefaultNamespace()
	labels, err := m.client.NamespaceService().Labels(ctx, ns)
	return err == nil && labels[importLabel(path)] == stamp
}

func (m *Images) remember(ctx context.Context, path, stamp string) error {
	return m.client.NamespaceService().SetLabel(ctx, m.client.DefaultNamespace(), importLabel(path), stamp)
}
