//go:build integration

package critest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/internal/testimage"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/cri/critest"
)

const (
	imageName = "docker.io/test/busybox:1"
	cgroup    = "/natest-cri"
)

func TestContainerd(t *testing.T) {
	bin, err := filepath.Abs("../../../.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nact") // not t.TempDir: paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	containerd := &cri.Embedded{Dir: filepath.Join(dir, "containerd"), BinDirs: []string{bin}, Log: log}
	t.Cleanup(func() {
		err := errors.Join(containerd.Stop(context.Background()), os.RemoveAll(dir), removeCgroups())
		if err != nil {
			t.Error(err)
		}
	})
	if err := containerd.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "image.tar")
	writeImage(t, archive)
	n := 0
	critest.Test(t, func(t *testing.T, wake func(types.UID)) critest.Machine {
		n++
		namespace := n
		at := filepath.Join(dir, fmt.Sprint(n))
		runtime, err := cri.New(t.Context(), cri.Config{
			Address: containerd.Address(), Namespace: fmt.Sprintf("critest%d", n), Snapshotter: "overlayfs", Wake: wake,
			StateDir: at + "/run", RootDir: at + "/lib", LogDir: at + "/log", ContainerLogDir: at + "/links",
			RuncBinary: filepath.Join(bin, "runc"), CgroupV2: unified(), LogMaxSize: 1 << 20, LogMaxFiles: 2, Log: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- runtime.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			// Shims that are grouped by a name leave their socket behind.
			name := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s/critest%d/uid-web", containerd.Address(), namespace)))
			for _, dir := range []string{"/run/containerd/s", filepath.Join(filepath.Dir(containerd.Address()), "s")} {
				if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("want the socket of the pod's shim removed from %s, got %v", dir, err)
				}
			}
		})
		images := cri.NewImages(runtime.Client(), cri.ImagesConfig{Snapshotter: "overlayfs", Log: log})
		if err := images.ImportArchive(t.Context(), archive); err != nil {
			t.Fatal(err)
		}
		image, err := images.EnsureImage(t.Context(), cri.ImageRequest{Ref: imageName, Policy: corev1.PullNever})
		if err != nil {
			t.Fatal(err)
		}
		return critest.Machine{Runtime: runtime, Image: image, Cgroup: cgroup}
	})
}

func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

func writeImage(t *testing.T, path string) {
	t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := testimage.Write(&b, testimage.Busybox(imageName, binary, []string{"sleep", "true", "false"})); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// removeCgroups removes the parent that runc made for our containers' own.
func removeCgroups() error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroup, "/sys/fs/cgroup/*" + cgroup} {
		dirs, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, d := range dirs {
			if err := os.Remove(d); !errors.Is(err, os.ErrNotExist) { // some are links to each other
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
