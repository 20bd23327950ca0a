//go:build integration

package cri

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

// embeddedIn returns an Embedded in a directory whose path is short enough for
// the sockets of shims. The containerd in it has ended when the test has.
func embeddedIn(t *testing.T) *Embedded {
	t.Helper()
	bin, err := filepath.Abs("../../.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "containerd")); err != nil {
		t.Fatalf("containerd is not built, see hack/build-tools.sh: %v", err)
	}
	dir, err := os.MkdirTemp("", "emb")
	if err != nil {
		t.Fatal(err)
	}
	e := &Embedded{Dir: dir, BinDirs: []string{bin}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for range 2 { // twice is as good as once
			if err := e.Stop(ctx); err != nil {
				t.Error(err)
			}
		}
		if data, err := os.ReadFile(e.logPath()); t.Failed() && err == nil {
			t.Logf("%s", data)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return e
}

func (e *Embedded) pid(t *testing.T) int {
	t.Helper()
	pid, err := socketOwner(e.Address())
	if err != nil || pid == 0 {
		t.Fatalf("nobody listens: %v", err)
	}
	return pid
}

func TestEmbeddedIsTakenOver(t *testing.T) {
	e := embeddedIn(t)
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := e.pid(t)
	if sid, err := unix.Getsid(first); err != nil || sid != first {
		t.Errorf("containerd is in session %d (%v): it would end with a terminal", sid, err)
	}
	next := *e // as after kill -9: nothing but the files is known
	if err := next.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := next.pid(t); got != first {
		t.Errorf("process %d was replaced by %d", first, got)
	}
	client, err := containerd.New(next.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	v, err := client.Version(t.Context())
	if err != nil || v.Version == "" {
		t.Errorf("version %v, %v", v, err)
	}
	plugins, err := client.IntrospectionService().Plugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins.Plugins {
		if p.InitErr != nil {
			t.Errorf("plugin %s.%s: %s", p.Type, p.ID, p.InitErr.Message)
		}
		if strings.Contains(p.Type, "cri") || strings.Contains(p.Type, "monitor") {
			t.Errorf("plugin %s.%s is of no use here", p.Type, p.ID)
		}
	}
}

// An upgrade has put new files in the place of those that run.
func TestEmbeddedIsReplacedWithItsFile(t *testing.T) {
	e := embeddedIn(t)
	original := filepath.Join(e.BinDirs[0], "containerd")
	install := func(dir string) {
		t.Helper()
		if out, err := exec.Command("install", "-D", original, filepath.Join(dir, "containerd")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	e.BinDirs = append([]string{filepath.Join(t.TempDir(), "bin")}, e.BinDirs...)
	install(e.BinDirs[0])
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := e.pid(t)
	install(e.BinDirs[0])
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := e.pid(t)
	if second == first {
		t.Errorf("process %d runs on from a file that is no longer there", first)
	}
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.pid(t); got != second {
		t.Errorf("process %d, which is of the file that is there, was replaced by %d", second, got)
	}
	// Without a file to start there is no better one.
	e.BinDirs = nil
	t.Setenv("PATH", "/nowhere")
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.pid(t); got != second {
		t.Errorf("process %d was given up for nothing, for %d", second, got)
	}
}

// The agent that started containerd is killed with all its process group.
func TestEmbeddedOutlivesItsAgent(t *testing.T) {
	e := embeddedIn(t)
	agent := exec.Command(os.Args[0], "-test.run=^TestEmbeddedAgentProcess$")
	agent.Env = append(os.Environ(), "EMBEDDED_DIR="+e.Dir, "EMBEDDED_BIN="+e.BinDirs[0])
	agent.Stderr = os.Stderr
	agent.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	ready, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the agent did not start: %v", err)
	}
	pid := e.pid(t)
	if err := unix.Kill(-agent.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // it was killed
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.pid(t); got != pid {
		t.Errorf("containerd %d did not outlive its agent; now it is %d", pid, got)
	}
}

// TestEmbeddedAgentProcess is the agent of TestEmbeddedOutlivesItsAgent.
func TestEmbeddedAgentProcess(t *testing.T) {
	dir := os.Getenv("EMBEDDED_DIR")
	if dir == "" {
		return
	}
	e := &Embedded{Dir: dir, BinDirs: []string{os.Getenv("EMBEDDED_BIN")}, Log: slog.New(slog.DiscardHandler)}
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("r")
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestEmbeddedIsStartedAgain(t *testing.T) {
	e := embeddedIn(t)
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	pid := e.pid(t)
	for range 3 {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		old := pid
		eventually(t, "another containerd", func() bool {
			now, err := socketOwner(e.Address())
			pid = now
			return err == nil && now != 0 && now != old
		})
	}
	eventually(t, "it is ready", func() bool { return awaitReadyNow(e) })
	cancel()
	run.Wait()
	if got := e.pid(t); got != pid {
		t.Errorf("containerd %d did not outlive Run; now it is %d", pid, got)
	}
}

func awaitReadyNow(e *Embedded) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	d, err := e.running()
	if err != nil || d == nil {
		return false
	}
	err = awaitHealth(ctx, e.Address(), d)
	return errors.Join(err, d.close()) == nil
}

func TestEmbeddedReplacesOneThatHangs(t *testing.T) {
	e := embeddedIn(t)
	if err := e.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := e.pid(t)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := e.Ensure(ctx); err == nil {
		t.Fatal("a stopped containerd was taken for a healthy one")
	}
	if err := e.Ensure(t.Context()); err != nil { // the first try has ended it
		t.Fatal(err)
	}
	if e.pid(t) == pid {
		t.Error("the stopped containerd is still there")
	}
}

func TestEmbeddedSaysWhyItDoesNotStart(t *testing.T) {
	e := embeddedIn(t)
	if err := os.WriteFile(filepath.Join(e.Dir, "root"), nil, 0o600); err != nil { // in the way of its directory
		t.Fatal(err)
	}
	err := e.Ensure(t.Context())
	if err == nil || !strings.Contains(err.Error(), e.logPath()) {
		t.Errorf("the error does not name the log: %v", err)
	}
	if err := os.Remove(filepath.Join(e.Dir, "root")); err != nil {
		t.Fatal(err)
	}
}
