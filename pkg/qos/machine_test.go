//go:build integration

package qos

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// testRoot keeps this test apart from everything else in the machine's cgroups.
const testRoot = "/natest-qos"

// machineTree is a tree on this machine's cgroups, with whatever driver its init
// asks for, in a root of its own where cgroups are plain directories.
func machineTree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: run `make test` as root")
	}
	cfg := machineConfig(t)
	if !systemdRunning(cfg.RunRoot) {
		cfg.CgroupRoot = testRoot
		h, err := openHierarchy(cfg.CgroupFSRoot)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.create(testRoot); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.rmdir(testRoot); err != nil {
				t.Error(err)
			}
		})
	}
	tree, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.RemoveRoot(context.Background()); err != nil { // the test's own context has ended
			t.Error(err)
		}
		tree.Close()
	})
	if err := tree.EnsureRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestExamplesOnThisMachine(t *testing.T) {
	tree := machineTree(t)
	for name, p := range examplePods() {
		cg, err := tree.EnsurePod(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := tree.EnsurePod(t.Context(), p)
		if err != nil || again != cg {
			t.Errorf("%s: repeated: %v, %v", name, again, err)
		}
		_, settings, err := tree.Plan(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range settings {
			if s.File == "" || s.optional {
				continue
			}
			got, ok := tree.fs.value(cg.Path, s.Controller, s.File)
			if !ok || got != s.Value {
				t.Errorf("%s: %s is %q, want %q", name, s.File, got, s.Value)
			}
		}
		if tree.SystemdDriver() {
			checkUnit(t, name, cg.Unit)
		}
	}
	found, err := tree.Pods(t.Context())
	if err != nil || len(found) != len(examplePods()) {
		t.Errorf("found pods %v, error %v", found, err)
	}
	pods := examplePods()
	if err := tree.ResizeTiers(t.Context(), []*corev1.Pod{pods["B1"], pods["B2"], pods["B3"], pods["P"]}); err != nil {
		t.Fatal(err)
	}
	levels, err := tree.Levels()
	if err != nil {
		t.Fatal(err)
	}
	file, want := "cpu.weight", "92"
	if tree.Version() == 1 {
		file, want = "cpu.shares", "2406"
	}
	if got, _ := tree.fs.value(levels[1], "cpu", file); got != want {
		t.Errorf("%s of burstable is %s, want %s", file, got, want)
	}
}

// checkUnit looks at a slice as systemd knows it.
func checkUnit(t *testing.T, name, unit string) {
	t.Helper()
	out, err := exec.Command("systemctl", "show", unit, "-p", "ActiveState,Delegate,CPUAccounting,MemoryAccounting,TasksMax").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ActiveState=active", "Delegate=no", "CPUAccounting=yes", "MemoryAccounting=yes", "TasksMax=1024"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: unit %s lacks %s:\n%s", name, unit, want, out)
		}
	}
}

func TestRemovePodKillsWhatIsLeft(t *testing.T) {
	tree := machineTree(t)
	p := examplePods()["G"]
	cg, err := tree.EnsurePod(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	child := cg.Path + "/left"
	for _, dir := range tree.fs.dirs(child) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if tree.Version() == 1 {
		if err := tree.fs.seedCPUSet(child); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range tree.fs.dirs(child) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	// As a runc leaves it that was killed at the wrong moment.
	for _, dir := range tree.fs.dirs(child) {
		for file, frozen := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			path := filepath.Join(dir, file)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if err := os.WriteFile(path, []byte(frozen), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := tree.RemovePod(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("the process ended with %v, want SIGKILL", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the process was not killed")
	}
	if tree.fs.anywhere(cg.Path) {
		t.Error("the cgroup is still there")
	}
	if err := tree.RemovePod(t.Context(), types.UID("never-there")); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}
