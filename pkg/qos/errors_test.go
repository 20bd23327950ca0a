//go:build integration

package qos

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrorsNameTheRemedy(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
	silent := t.TempDir() // systemd runs, and nobody answers
	if err := os.MkdirAll(silent+"/systemd/system", 0o755); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change func(*Config)
		want   string
	}{
		"NoCgroups":     {func(c *Config) { c.CgroupFSRoot = "/nowhere" }, "mount -t cgroup2"},
		"UnknownDriver": {func(c *Config) { c.Driver = "magic" }, "use systemd, cgroupfs"},
		"NoRoot":        {func(c *Config) { c.CgroupRoot = "/not/there" }, "create it first"},
		"NoSystemd":     {func(c *Config) { c.Driver, c.RunRoot = "systemd", "/nowhere" }, "boot with systemd, or set cgroupDriver: cgroupfs"},
		"NoDBus":        {func(c *Config) { c.RunRoot = silent }, "start dbus.service"},
		"TooMuch":       {func(c *Config) { c.Node.KubeReserved = list("", "1000Ti") }, "lower them"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := machineConfig(t)
			tc.change(&c)
			if _, err := New(t.Context(), c); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want it to say %q", err, tc.want)
			}
		})
	}
	t.Run("MissingController", func(t *testing.T) {
		root := t.TempDir()
		if err := os.WriteFile(root+"/cgroup.controllers", []byte("cpu io pids\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := openHierarchy(root); err == nil || !strings.Contains(err.Error(), "cpuset") {
			t.Errorf("got %v, want the missing controller named", err)
		}
	})
}

// machineConfig is of the example node, on this machine.
func machineConfig(t *testing.T) Config {
	t.Helper()
	cfg := exampleTree(t, 2, false, nil).cfg
	cfg.CgroupFSRoot, cfg.ProcRoot, cfg.SysRoot, cfg.RunRoot, cfg.CgroupRoot = "/sys/fs/cgroup", "/proc", "/sys", "/run", "/"
	cfg.Node.SystemReserved, cfg.Node.KubeReserved = nil, nil
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	return cfg
}

// TestReadOnly looks at cgroups as a container without privileges sees them.
func TestReadOnly(t *testing.T) {
	cfg := machineConfig(t)
	cfg.Driver = "cgroupfs"
	tree, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its mounts
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		for _, dir := range tree.fs.mounts {
			if err == nil {
				err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
			}
		}
		if err == nil {
			err = tree.EnsureRoot(context.Background())
		}
		done <- err
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), "remount") {
		t.Errorf("got %v, want the read-only hierarchy named, and the remedy", err)
	}
}

// TestSomebodyElses is about a kubelet on the same machine.
func TestSomebodyElses(t *testing.T) {
	tree := machineTree(t)
	p := examplePods()["E"]
	cg, err := tree.EnsurePod(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports our own kill
	})
	if err := os.WriteFile(filepath.Join(tree.fs.mount("memory"), cg.Path, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if err := tree.EnsureRoot(t.Context()); err != nil {
		t.Errorf("our own pods: %v", err)
	}
	levels, err := tree.Levels()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Removexattr(filepath.Join(tree.fs.mount("memory"), levels[0]), ownerMark); err != nil {
		t.Fatal(err)
	}
	for name, verb := range map[string]func(context.Context) error{"run": tree.EnsureRoot, "down": tree.RemoveRoot} {
		if err := verb(t.Context()); err == nil || !strings.Contains(err.Error(), "belongs to another agent") {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a process of somebody else's pod: %v", err)
	}
	tree.fs.claim(levels[0])
}

// TestNamesThatLeadElsewhere is about UIDs in manifests and leftover files.
func TestNamesThatLeadElsewhere(t *testing.T) {
	tree := machineTree(t)
	outside := "/natest-outside"
	if err := tree.fs.create(outside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.fs.rmdir(outside); err != nil {
			t.Error(err)
		}
	})
	p := examplePods()["E"]
	p.UID = "x/../../.." + "/natest-outside"
	if _, err := tree.EnsurePod(t.Context(), p); err == nil {
		t.Error("a cgroup was made for a UID that is a path")
	}
	if err := tree.RemovePod(t.Context(), p.UID); err != nil {
		t.Error(err)
	}
	if !tree.fs.exists(outside) {
		t.Error("a cgroup that is not ours is gone")
	}
}
