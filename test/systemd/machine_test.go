//go:build systemd

package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const repo = "../.."

// command returns what was printed, or fails the test with the complaint.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.Command(name, args...) // not with the test's context: cleaning up uses it too
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}

func TestSystemdIsInit(t *testing.T) {
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(comm)); got != "systemd" {
		t.Errorf("process 1 is %s", got)
	}
	if failed := command(t, "systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("units failed at boot:\n%s", failed)
	}
}

// startContainerd returns ctr's arguments to talk to a containerd of this test.
func startContainerd(t *testing.T) []string {
	t.Helper()
	bin, err := filepath.Abs(repo + "/.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	dir := t.TempDir()
	socket := dir + "/c.sock"
	config := fmt.Sprintf("version = 3\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nroot = %q\nstate = %q\n[grpc]\n  address = %q\n", dir+"/root", dir+"/state", socket)
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin+"/containerd", "--config", dir+"/config.toml", "--log-level", "warn")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // reports our own kill
		if t.Failed() {
			t.Log(log.String())
		}
	})
	args := []string{"--address", socket, "--namespace", "test"}
	deadline := time.Now().Add(time.Minute)
	for exec.Command("ctr", append(args, "version")...).Run() != nil {
		if time.Now().After(deadline) {
			t.Fatal("containerd does not answer")
		}
		time.Sleep(100 * time.Millisecond)
	}
	return args
}

func TestContainerInSlice(t *testing.T) {
	args := startContainerd(t)
	ctr := func(more ...string) string { return command(t, "ctr", append(args, more...)...) }

	archives, err := filepath.Glob(repo + "/.cache/images/*.tar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no image archive: %v", err)
	}
	ctr("images", "import", archives[0])
	image := ctr("images", "list", "--quiet")
	ctr("run", "--detach", "--runc-systemd-cgroup", "--cgroup", "natest-box.slice:natest:c1", image, "c1", "sleep", "1000")
	t.Cleanup(func() {
		exec.Command("ctr", append(args, "task", "kill", "--signal", "9", "c1")...).Run() //nolint:errcheck // may be gone
		exec.Command("ctr", append(args, "task", "delete", "--force", "c1")...).Run()     //nolint:errcheck // may be gone
		exec.Command("systemctl", "stop", "natest-box.slice", "natest.slice").Run()       //nolint:errcheck // may be gone
	})

	scope := command(t, "systemctl", "show", "--property=ActiveState,Slice,ControlGroup", "natest-c1.scope")
	want := "Slice=natest-box.slice\nControlGroup=/natest.slice/natest-box.slice/natest-c1.scope\nActiveState=active"
	if scope != want {
		t.Errorf("scope:\n%s\nwant:\n%s", scope, want)
	}
	pid := strings.Fields(ctr("task", "ls", "--quiet"))
	if len(pid) != 1 {
		t.Fatalf("tasks: %v", pid)
	}
	if uname := ctr("task", "exec", "--exec-id", "e1", "c1", "uname"); uname != "Linux" {
		t.Errorf("exec printed %q", uname)
	}
	ctr("task", "kill", "--signal", "9", "c1")
	ctr("task", "delete", "--force", "c1")
	if state := command(t, "systemctl", "show", "--property=LoadState", "natest-c1.scope"); state != "LoadState=not-found" {
		t.Errorf("the scope outlived its container: %s", state)
	}
}
