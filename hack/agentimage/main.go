// Command agentimage builds the agent's own image: a static binary for each
// processor and the certificates of public authorities, on nothing else.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nodeagent/nodeagent/internal/testimage"
)

func main() {
	out := flag.String("o", "nodeagent-image.tar", "archive to write")
	name := flag.String("name", "nodeagent.dev/nodeagent:unknown", "reference of the image")
	version := flag.String("version", "unknown", "version of the agent")
	certificates := flag.String("certificates", "/etc/ssl/certs/ca-certificates.crt", "authorities that the agent trusts when it pulls images")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: agentimage [flags] ARCH=BINARY...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := build(*out, *name, *version, *certificates, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "agentimage:", err)
		os.Exit(1)
	}
}

func build(out, name, version, certificates string, binaries []string) error {
	images, err := imagesOf(name, version, certificates, binaries)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return writeWhole(out, func(w io.Writer) error { return testimage.WriteMulti(w, images...) })
}

// imagesOf lays out an image for each ARCH=BINARY.
func imagesOf(name, version, certificates string, binaries []string) ([]testimage.Image, error) {
	if len(binaries) == 0 {
		return nil, fmt.Errorf("name a binary as ARCH=BINARY, such as amd64=bin/nodeagent")
	}
	authorities, err := os.ReadFile(certificates)
	if err != nil {
		return nil, err
	}
	var images []testimage.Image
	for _, b := range binaries {
		arch, path, ok := strings.Cut(b, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not ARCH=BINARY", b)
		}
		binary, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		images = append(images, image(name, version, arch, binary, authorities))
	}
	return images, nil
}

func image(name, version, arch string, binary, authorities []byte) testimage.Image {
	dir := testimage.File{Mode: 0o755}
	return testimage.Image{
		Name: name, Arch: arch, Gzip: true,
		Files: map[string]testimage.File{
			"etc": dir, "etc/ssl": dir, "etc/ssl/certs": dir, "usr": dir, "usr/local": dir, "usr/local/bin": dir,
			"tmp":                               {Mode: 0o1777},
			"etc/ssl/certs/ca-certificates.crt": {Data: authorities, Mode: 0o644},
			"usr/local/bin/nodeagent":           {Data: binary, Mode: 0o755},
		},
		Config: ocispec.ImageConfig{
			Env:        []string{"PATH=/usr/local/bin"},
			Entrypoint: []string{"/usr/local/bin/nodeagent"},
			Cmd:        []string{"run"},
			Labels: map[string]string{
				ocispec.AnnotationTitle:       "nodeagent",
				ocispec.AnnotationDescription: "Runs Kubernetes Pods on a machine and enforces what their resources say",
				ocispec.AnnotationVersion:     version,
				ocispec.AnnotationLicenses:    "Apache-2.0",
				ocispec.AnnotationSource:      "https://github.com/nodeagent/nodeagent",
			},
		},
	}
}

// writeWhole writes a file that is never seen half written.
func writeWhole(path string, write func(io.Writer) error) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
