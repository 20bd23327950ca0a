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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// newTree uses a cgroup of its own and never the machine's.
func newTree(t *testing.T) *qos.Tree {
	t.Helper()
	const root = "/natest-podsync"
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
			dirs = append(dirs, filepath.Dir(m)+root)
		}
	}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	tree, err := qos.New(t.Context(), qos.Config{
		Driver: "cgroupfs", CgroupFSRoot: "/sys/fs/cgroup", ProcRoot: "/proc", SysRoot: "/sys", CgroupRoot: root,
		CPUCFSQuota: true, CPUCFSQuotaPeriod: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
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

type trimmed struct{ *qos.Tree }

func (t trimmed) Container(pod *corev1.Pod, c *corev1.Container) qos.ContainerResources {
	r := t.Tree.Container(pod, c)
	r.Linux.HugepageLimits = nil
	return r
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
	cfg.Runtime, cfg.Images, cfg.Cgroups = rt, images, trimmed{m.tree}
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

// eventually waits until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 30 s: %s", what)
}

func shell(name, script string) corev1.Container {
	return corev1.Container{
		Name: name, Image: testImage, ImagePullPolicy: corev1.PullNever, Command: []string{"sh", "-c", script},
		TerminationMessagePath: "/dev/termination-log",
	}
}

func realPod(name string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{
			HostNetwork: true, RestartPolicy: corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: new(int64(2)), Containers: containers,
		},
	}
}

func TestRealPodLife(t *testing.T) {
	m := newMachine(t)
	pool, desired, stop := m.boot(t)
	defer func() { stop() }()
	phase := func(uid types.UID) corev1.PodPhase { s, _ := pool.Status(uid); return s.Phase }

	job := realPod("job", shell("main", "echo last words > /dev/termination-log"))
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Spec.InitContainers = []corev1.Container{shell("init", "true"), shell("proxy", "sleep 1000")}
	job.Spec.InitContainers[1].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	server := realPod("server", shell("main", "sleep 1000"), shell("crash", "sleep 0.1; false"))
	server.Spec.Containers[0].Resources.Requests = list("cpu", "100m")
	desired.Set("file", []*corev1.Pod{job, server})

	eventually(t, "the job succeeds, its sidecar stopped", func() bool { return phase("uid-job") == corev1.PodSucceeded })
	s, _ := pool.Status("uid-job")
	if msg := s.ContainerStatuses[0].State.Terminated.Message; strings.TrimSpace(msg) != "last words" {
		t.Errorf("want the termination message, got %q", msg)
	}
	eventually(t, "the server runs and its other container loops", func() bool {
		s, _ := pool.Status("uid-server")
		return len(s.ContainerStatuses) == 2 && s.ContainerStatuses[0].State.Running != nil &&
			s.ContainerStatuses[1].State.Waiting != nil && s.ContainerStatuses[1].State.Waiting.Reason == "CrashLoopBackOff"
	})
	before, _ := pool.Status("uid-server")
	stop()

	pool, desired, stop = m.boot(t)
	desired.Set("file", []*corev1.Pod{job, server})
	eventually(t, "the next agent takes both on", func() bool { return phase("uid-server") != "" && phase("uid-job") != "" })
	after, _ := pool.Status("uid-server")
	for i := range before.ContainerStatuses {
		b, a := before.ContainerStatuses[i], after.ContainerStatuses[i]
		if b.ContainerID != a.ContainerID || b.RestartCount != a.RestartCount {
			t.Errorf("container %s is as it was: before %s/%d, after %s/%d", b.Name, b.ContainerID, b.RestartCount, a.ContainerID, a.RestartCount)
		}
	}
	if phase("uid-job") != corev1.PodSucceeded {
		t.Errorf("what has succeeded has succeeded, got %s", phase("uid-job"))
	}
	if err := pool.Restart("uid-server", "main"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a restart in place", func() bool {
		s, _ := pool.Status("uid-server")
		c := s.ContainerStatuses[0]
		return c.RestartCount == 1 && c.State.Running != nil && c.LastTerminationState.Terminated.Reason == ReasonRequested
	})

	desired.Set("file", nil)
	eventually(t, "both go", func() bool { return len(pool.Pods()) == 0 })
	if uids, err := m.tree.Pods(t.Context()); err != nil || len(uids) > 0 {
		t.Errorf("their cgroups, too: %v %v", uids, err)
	}
}

// TestRealAgentRestarts stops the agent again and again while pods start.
func TestRealAgentRestarts(t *testing.T) {
	m := newMachine(t)
	var pods []*corev1.Pod
	for i := range 20 {
		pods = append(pods, realPod(fmt.Sprintf("p%02d", i), shell("main", "sleep 1000")))
	}
	for i := range 6 {
		_, desired, stop := m.boot(t)
		desired.Set("file", pods)
		time.Sleep(time.Duration(50+i*60) * time.Millisecond)
		stop()
	}
	pool, desired, stop := m.boot(t)
	defer func() { stop() }()
	desired.Set("file", pods)
	eventually(t, "all run", func() bool {
		return len(pool.Pods()) == len(pods) && !slices.ContainsFunc(pool.Pods(), func(p *corev1.Pod) bool {
			return p.Status.Phase != corev1.PodRunning || !p.Status.ContainerStatuses[0].Ready
		})
	})
	for _, p := range pool.Pods() {
		if c := p.Status.ContainerStatuses[0]; c.RestartCount != 0 || c.LastTerminationState.Terminated != nil {
			t.Errorf("a start that was interrupted is no restart: %s has %d, last %+v", p.Name, c.RestartCount, c.LastTerminationState.Terminated)
		}
	}
	desired.Set("file", nil)
	eventually(t, "all go", func() bool { return len(pool.Pods()) == 0 })
}
