package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
)

// Reasons why an image is not there, in the kubelet's words.
const (
	ErrImagePull        = "ErrImagePull"
	ErrImageNeverPull   = "ErrImageNeverPull"
	ErrInvalidImageName = "InvalidImageName"
	ErrImageInspect     = "ImageInspectError"
)

// ImageError says why an image is not there.
type ImageError struct {
	Reason string
	Err    error
}

func (e *ImageError) Error() string { return e.Err.Error() }
func (e *ImageError) Unwrap() error { return e.Err }

// ImageRequest says which image is wanted.
type ImageRequest struct {
	Ref    string
	Policy corev1.PullPolicy
	// Credentials are tried in order, before those of the docker configuration.
	Credentials []Credential
	// More are asked for when the image has to be pulled, and tried after
	// Credentials; it may be nil. Its error counts only if the pull fails.
	More func(ctx context.Context) ([]Credential, error)
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
	// StallTimeout ends a pull that receives nothing for so long; 0 is 5 minutes.
	StallTimeout time.Duration
	// MaxParallelPulls bounds how many images are pulled at once; 0 is no bound.
	MaxParallelPulls int
	// Arrived is called after an import: a pod may be waiting.
	Arrived func()
	Log     *slog.Logger
}

// Images keeps images present. Its methods are safe for concurrent use.
type Images struct {
	client *containerd.Client
	cfg    ImagesConfig

	turns chan struct{}     // nil when any number may pull at once
	tried map[string]string // archives by name, and their state; only Scan and then Run touch it

	mu    sync.Mutex // guards all below; never held across I/O
	cache map[string]Image
	pulls map[string]*pull // by reference and credential
}

// NewImages starts nothing; see Run.
func NewImages(client *containerd.Client, cfg ImagesConfig) *Images {
	if cfg.StallTimeout == 0 {
		cfg.StallTimeout = stallTimeout
	}
	m := &Images{client: client, cfg: cfg, tried: map[string]string{}, cache: map[string]Image{}, pulls: map[string]*pull{}}
	if cfg.MaxParallelPulls > 0 {
		m.turns = make(chan struct{}, cfg.MaxParallelPulls)
	}
	return m
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
			return Image{}, &ImageError{Reason: ErrImageInspect, Err: fmt.Errorf("inspect image %q: %w", req.Ref, err)}
		}
		if req.Policy == corev1.PullNever {
			return Image{}, &ImageError{Reason: ErrImageNeverPull, Err: fmt.Errorf("container image %q is not present with pull policy of Never", req.Ref)}
		}
	}
	var broken error
	if req.More != nil {
		var more []Credential
		more, broken = req.More(ctx)
		req.Credentials = append(slices.Clip(req.Credentials), more...)
	}
	image, err := m.pullOnce(ctx, ref, &req)
	if err != nil {
		err = errors.Join(err, broken)
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
	if errdefs.IsNotFound(err) {
		record, err = m.byDigest(ctx, ref, err)
	}
	if err != nil {
		return Image{}, err
	}
	return m.learn(ctx, record)
}

// byDigest finds an image that was pulled or imported by its tag and is wanted
// by its digest now. missing is the error when there is none.
func (m *Images) byDigest(ctx context.Context, ref string, missing error) (containerd.Image, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, missing
	}
	digested, ok := named.(reference.Digested)
	if !ok {
		return nil, missing
	}
	list, err := m.client.ListImages(ctx, "target.digest=="+digested.Digest().String())
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if other, err := reference.ParseNormalizedNamed(i.Name()); err == nil && other.Name() == named.Name() {
			return i, nil
		}
	}
	return nil, missing
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
	meta := record.Metadata()
	out := Image{
		Name: meta.Name, Pinned: meta.Labels["io.cri-containerd.pinned"] == "pinned", Archive: meta.Labels[labelArchive], CreatedAt: meta.UpdatedAt,
	}
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

// Run keeps what is known of images true, and imports archives from the image
// directory as they appear, until ctx ends.
func (m *Images) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.follow(ctx) })
	g.Go(func() error { return m.watchDir(ctx) })
	return g.Wait()
}

// follow forgets images that others change or remove.
func (m *Images) follow(ctx context.Context) error {
	filter := fmt.Sprintf(`namespace==%s,topic~="^/images/(update|delete)$"`, m.client.DefaultNamespace())
	for {
		news, lost := m.client.Subscribe(ctx, filter)
		m.forget("") // whatever happened before is not told
		for open := true; open; {
			select {
			case e := <-news:
				event, err := typeurl.UnmarshalAny(e.Event)
				named, ok := event.(interface{ GetName() string })
				if err != nil || !ok {
					m.forget("")
					continue
				}
				m.forget(named.GetName())
			case err := <-lost:
				m.cfg.Log.Debug("containerd no longer tells of images", "err", err)
				open = false
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second): // containerd is away
		}
	}
}

// forget drops what is known of an image, or of all.
func (m *Images) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == "" {
		clear(m.cache)
		return
	}
	delete(m.cache, name)
}

// Names are the images that are there, with their digests: enough to notice that
// one has come or gone.
func (m *Images) Names(ctx context.Context) (map[string]string, error) {
	records, err := m.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := map[string]string{}
	for i := range records {
		out[records[i].Name] = records[i].Target.Digest.String()
	}
	return out, nil
}

// List describes every image that is there.
func (m *Images) List(ctx context.Context) ([]Image, error) {
	records, err := m.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := make([]Image, 0, len(records))
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
	m.forget(name)
	if err := ignoreNotFound(m.client.ImageService().Delete(ctx, name, images.SynchronousDelete())); err != nil {
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	return nil
}

// InUse are the names of the images of every container in our containerd
// namespace, whoever made it.
func (m *Images) InUse(ctx context.Context) ([]string, error) {
	list, err := m.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var out []string
	for i := range list {
		out = append(out, list[i].Image, list[i].Labels[labelImageID])
	}
	return out, nil
}

// Dir is where the snapshotter keeps images, which tells their file system.
func (m *Images) Dir(ctx context.Context) (string, error) {
	found, err := m.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+m.cfg.Snapshotter)
	if err != nil {
		return "", fmt.Errorf("ask containerd for snapshotter %s: %w", m.cfg.Snapshotter, err)
	}
	for _, p := range found.Plugins {
		if root := p.Exports["root"]; root != "" {
			return root, nil
		}
	}
	return "", fmt.Errorf("snapshotter %s does not say where it keeps its files", m.cfg.Snapshotter)
}

// NormalName is the full form of a pod's image reference, which is the name of
// the image; what is no reference stays as it is.
func NormalName(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return named.String()
}
