//go:build integration

package podsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/internal/testimage"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

const testImage = "docker.io/test/busybox:1"

// machine is a real runtime and real cgroups under a root of the test's own.
type machine struct {
	*node // for what is not real here: volumes, probes, the board
	dir   string
	tree  *qos.Tree
}

// bins is where the build tools put containerd and runc.
func bins(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "containerd")); err != nil {
		t.Fatalf("containerd is not built: run hack/build-tools.sh: %v", err)
	}
	return dir
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "nasync") // not t.TempDir: socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cleanUp(t, dir) })
	m := &machine{node: newNode(), dir: dir}
	m.startContainerd(t)
	m.tree = newTree(t)
	return m
}

// cleanUp unmounts what a test that failed left behind.
func cleanUp(t *testing.T, dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

func (m *machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

func (m *machine) startContainerd(t *testing.T) {
	t.Helper()
	config := fmt.Sprintf("version = 3\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.runtime\", \"io.containerd.cri.v1.images\"]\n[grpc]\naddress = %q\n",
		m.path("root"), m.path("state"), m.path("c.sock"))
	if err := os.WriteFile(m.path("containerd.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(m.path("containerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bins(t), "containerd"), "--config", m.path("containerd.toml"))
	cmd.Env = append(os.Environ(), "PATH="+bins(t)+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = syscall.Unmount(m.path("state"), syscall.MNT_DETACH)
		if t.Failed() {
			text, _ := os.ReadFile(m.path("containerd.log"))
			t.Logf("containerd:\n%s", text[max(0, len(text)-4000):])
		}
	})
}

// removeCgroup kills what is left in the test's own cgroup and removes it.
func removeCgroup(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		procs, err := os.ReadFile(path)
		for pid := range strings.FieldsSeq(string(procs)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	eventually(t, "the cgroup is removed", func() bool {
		var dirs []string
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			_ = os.Remove(d)
		}
		return len(dirs) == 0
	})
}

const cgroupRoot = "/natest-podsync"

func treeConfig(t *testing.T) qos.Config {
	return qos.Config{
		Driver: "cgroupfs", CgroupFSRoot: "/sys/fs/cgroup", ProcRoot: "/proc", SysRoot: "/sys", CgroupRoot: cgroupRoot,
		CPUCFSQuota: true, CPUCFSQuotaPeriod: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// newTree uses a cgroup of its own and never the machine's.
func newTree(t *testing.T) *qos.Tree {
	t.Helper()
	var dirs []string
	mounts, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(mounts, "/sys/fs/cgroup/cgroup.procs") {
		if _, err := os.Stat(m); err != nil || strings.Contains(m, "kubepods") {
			continue
		}
		if resolved, err := filepath.EvalSymlinks(filepath.Dir(m)); err == nil && resolved == filepath.Dir(m) {
			dirs = append(dirs, filepath.Dir(m)+cgroupRoot)
		}
	}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	tree, err := qos.New(t.Context(), treeConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.RemoveRoot(context.Background()); err != nil {
			t.Error(err)
		}
		tree.Close()
		for _, d := range dirs {
			removeCgroup(t, d)
		}
	})
	if err := tree.EnsureRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tree
}

// boot runs an agent on the machine until its stop is called.
func (m *machine) boot(t *testing.T) (pool *Pool, desired *Desired, stop func()) {
	t.Helper()
	var p *Pool
	rt := m.connect(t, func(uid types.UID) {
		if p != nil {
			p.Wake(uid)
		}
	})
	images := cri.NewImages(rt.Client(), cri.ImagesConfig{Snapshotter: "overlayfs", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	m.importImage(t, images)
	cfg := m.config(t, m.path("agent"))
	cfg.Runtime, cfg.Images, cfg.Cgroups = rt, images, m.tree
	p = NewPool(cfg)
	var stops []func()
	for _, run := range []func(context.Context) error{rt.Run, p.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		stops = append(stops, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	return p, cfg.Desired, func() {
		for _, stop := range slices.Backward(stops) { // the runtime outlives its user
			stop()
		}
	}
}

func (m *machine) connect(t *testing.T, wake func(types.UID)) *cri.Runtime {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rt, err := cri.New(ctx, cri.Config{
		Address: m.path("c.sock"), Namespace: "nodeagent", Snapshotter: "overlayfs",
		StateDir: m.path("run"), RootDir: m.path("agent"), LogDir: m.path("log"), ContainerLogDir: m.path("links"),
		RuncBinary: filepath.Join(bins(t), "runc"), CgroupV2: m.tree.Version() == 2, Wake: wake,
		LogMaxSize: 1 << 20, LogMaxFiles: 2, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func (m *machine) importImage(t *testing.T, images *cri.Images) {
	t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := testimage.Write(&archive, testimage.Busybox(testImage, binary, []string{"sh", "sleep", "true", "cat", "touch", "false"})); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path("image.tar"), archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := images.ImportArchive(t.Context(), m.path("image.tar")); err != nil {
		t.Fatal(err)
	}
}
