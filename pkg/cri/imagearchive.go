package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/fsnotify/fsnotify"
)

// labelArchive is on an image record: the archive of the image directory that it
// came from. A later pull of the same name takes it off.
const labelArchive = labelPrefix + "archive"

// ImportArchive imports an OCI or docker archive and unpacks its images.
func (m *Images) ImportArchive(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	imported, err := m.client.Import(ctx, f, containerd.WithImportPlatform(platforms.Default()),
		containerd.WithImageLabels(map[string]string{labelArchive: filepath.Base(path)}))
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

// InImageDir says whether the archive that an image came from is still in the
// image directory: such an image cannot be pulled again.
func (m *Images) InImageDir(i *Image) bool {
	if i.Archive == "" || m.cfg.ImageDir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(m.cfg.ImageDir, filepath.Base(i.Archive)))
	return err == nil
}

// watchDir imports archives from the image directory as they appear, until ctx ends.
func (m *Images) watchDir(ctx context.Context) error {
	if m.cfg.ImageDir == "" {
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
			if errdefs.IsUnavailable(err) {
				delete(m.tried, e.Name()) // nothing is wrong with the archive: containerd is away
			}
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
