// Package testimage builds small OCI image archives without a daemon: those of the
// tests and the demo, which so need no registry, and the agent's own. The same
// input gives the same bytes.
package testimage

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	_ "crypto/sha256" // go-digest computes with it
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is one entry of an image's only layer.
type File struct {
	// Data is the content of a regular file, Link the target of a symbolic link; a
	// file with neither is a directory.
	Data []byte
	Link string
	Mode int64
}

// Image is what an archive holds.
type Image struct {
	Name   string // reference, such as demo/busybox:1
	Files  map[string]File
	Config ocispec.ImageConfig
	// Arch is the processor that the image is for; empty is this machine's.
	Arch string
	// Gzip compresses the layer.
	Gzip bool
}

// Content is an image as a registry keeps it.
type Content struct {
	Manifest ocispec.Descriptor
	Blobs    map[digest.Digest][]byte // the manifest among them
}

// Write writes i as a tar archive in the OCI layout.
func Write(w io.Writer, i Image) error {
	built, err := Build(i)
	if err != nil {
		return err
	}
	return writeNamed(w, i.Name, built.Manifest, built.Blobs)
}

// WriteMulti writes images that differ in Arch as one image of the first one's
// name, from which each machine takes its own.
func WriteMulti(w io.Writer, images ...Image) error {
	blobs := map[digest.Digest][]byte{}
	var manifests []ocispec.Descriptor
	for _, i := range images {
		built, err := Build(i)
		if err != nil {
			return err
		}
		maps.Copy(blobs, built.Blobs)
		manifests = append(manifests, built.Manifest)
	}
	index, err := indexOf(manifests...)
	if err != nil {
		return err
	}
	top := add(blobs, ocispec.MediaTypeImageIndex, index)
	return writeNamed(w, images[0].Name, top, blobs)
}

// writeNamed writes the layout of what top describes, under a name.
func writeNamed(w io.Writer, name string, top ocispec.Descriptor, blobs map[digest.Digest][]byte) error {
	top.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: name}
	index, err := indexOf(top)
	if err != nil {
		return err
	}
	return writeLayout(w, index, blobs)
}

func indexOf(manifests ...ocispec.Descriptor) ([]byte, error) {
	return json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
}

// add adds a blob and returns what describes it.
func add(blobs map[digest.Digest][]byte, mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// Build makes an image's blobs.
func Build(i Image) (Content, error) {
	layer, err := i.layer()
	if err != nil {
		return Content{}, err
	}
	arch := cmp.Or(i.Arch, runtime.GOARCH)
	blobs := map[digest.Digest][]byte{}
	stored, mediaType := layer, ocispec.MediaTypeImageLayer
	if i.Gzip {
		if stored, err = compress(layer); err != nil {
			return Content{}, err
		}
		mediaType = ocispec.MediaTypeImageLayerGzip
	}
	epoch := time.Unix(0, 0).UTC()
	config, err := json.Marshal(ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{Architecture: arch, OS: "linux"},
		Config:   i.Config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	if err != nil {
		return Content{}, err
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    add(blobs, ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{add(blobs, mediaType, stored)},
	})
	if err != nil {
		return Content{}, err
	}
	top := add(blobs, ocispec.MediaTypeImageManifest, manifest)
	top.Platform = &ocispec.Platform{Architecture: arch, OS: "linux"}
	return Content{Manifest: top, Blobs: blobs}, nil
}

func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b) // no name and no time in its header
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil { // before the bytes are taken: it writes the last ones
		return nil, err
	}
	return b.Bytes(), nil
}

func writeLayout(w io.Writer, index []byte, blobs map[digest.Digest][]byte) error {
	files := map[string][]byte{ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index}
	for d, data := range blobs {
		files["blobs/sha256/"+d.Encoded()] = data
	}
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		if _, err := tw.Write(files[name]); err != nil {
			return err
		}
	}
	return tw.Close()
}

// layer is the image's root file system as a tar archive.
func (i *Image) layer() ([]byte, error) {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(i.Files)) {
		f := i.Files[name]
		h := &tar.Header{Name: path.Clean(name), Mode: f.Mode, ModTime: time.Unix(0, 0)}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		case f.Data != nil:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Data))
		default:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		}
		if err := tw.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("add %s: %w", name, err)
		}
		if _, err := tw.Write(f.Data); err != nil {
			return nil, fmt.Errorf("add %s: %w", name, err)
		}
	}
	if err := tw.Close(); err != nil { // before the bytes are taken: it writes the last ones
		return nil, err
	}
	return b.Bytes(), nil
}

// Busybox is a small Linux user land around a static busybox binary and the
// names of its applets.
func Busybox(name string, binary []byte, applets []string) Image {
	files := map[string]File{
		"bin": {Mode: 0o755}, "etc": {Mode: 0o755}, "tmp": {Mode: 0o1777}, "root": {Mode: 0o700}, "var": {Mode: 0o755},
		"bin/busybox": {Data: binary, Mode: 0o755},
		"etc/passwd":  {Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"), Mode: 0o644},
		"etc/group":   {Data: []byte("root:x:0:\nnobody:x:65534:\n"), Mode: 0o644},
	}
	for _, a := range applets {
		if _, taken := files["bin/"+a]; !taken && a != "" {
			files["bin/"+a] = File{Link: "busybox", Mode: 0o777}
		}
	}
	return Image{Name: name, Files: files, Config: ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}}
}
