package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestHelperProcess is not a test: it is what other tests run in a process of its
// own, with the arguments after "--".
func TestHelperProcess(*testing.T) {
	args := os.Args
	for len(args) > 0 && args[0] != "--" {
		args = args[1:]
	}
	if len(args) < 2 {
		return
	}
	var err error
	switch args[1] {
	case "hold":
		err = HoldMain()
	case "pump":
		err = pumpMain(args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func helper(args ...string) []string {
	return append([]string{os.Args[0], "-test.run=^TestHelperProcess$", "--"}, args...)
}

// pumpMain is an agent with one container, in dir, until its output has ended.
func pumpMain(dir string) error {
	h := NewHolder(dir, holderCommand(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	cfg := crashConfig(dir)
	cfg.Holder, cfg.Log = h, h.log
	c, err := newContainerIO(cfg)
	if err != nil {
		return err
	}
	c.Run(context.Background())
	<-c.Drained()
	return h.Close()
}

func holderCommand() []string { return helper("hold") }

func crashConfig(dir string) ioConfig {
	return ioConfig{
		ID: "c1", Dir: filepath.Join(dir, "io"), LogPath: filepath.Join(dir, "logs", "default_web_uid", "main", "0.log"),
		MaxSize: 512 << 10, MaxFiles: 1000,
	}
}

// shortTempDir is short enough for a socket in it.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hold")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(StopHolder(dir), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func startTestHolder(t *testing.T, dir string) *Holder {
	t.Helper()
	h := NewHolder(dir, holderCommand(), quiet())
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		l := <-h.link
		if l.child != 0 {
			_ = unix.Kill(l.child, unix.SIGKILL)
			_, _ = unix.Wait4(l.child, nil, 0, nil)
		}
	})
	return h
}

func (h *Holder) childPID() int {
	l := <-h.link
	defer func() { h.link <- l }()
	return l.child
}

func (h *Holder) keys(t *testing.T) []string {
	t.Helper()
	answer, _, err := h.ask(holdMessage{verb: verbList}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return answer.names
}

// pipeFile returns the reading end of a pipe with content and no writer: only who
// holds it keeps the content.
func pipeFile(t *testing.T, content string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.WriteString(content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestHolderHolds(t *testing.T) {
	dir := shortTempDir(t)
	h := startTestHolder(t, dir)
	if files, err := h.recall("a"); err != nil || len(files) != 0 {
		t.Fatalf("recall without a holder: %v, %v", files, err)
	}
	if err := h.drop("a"); err != nil {
		t.Fatalf("drop without a holder: %v", err)
	}
	if _, err := os.Stat(h.socket); !os.IsNotExist(err) {
		t.Fatalf("a holder was started with nothing to hold: %v", err)
	}
	one, two := pipeFile(t, "one"), pipeFile(t, "two")
	if err := h.hold("a", map[string]*os.File{streamStdout: one, streamStderr: two, stdinName: nil}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(h.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
	_, _ = one.Close(), two.Close()
	files, err := h.recall("a")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, f := range files {
		data, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = string(data)
		_ = f.Close()
	}
	if diff := cmp.Diff(map[string]string{streamStdout: "one", streamStderr: "two"}, got); diff != "" {
		t.Errorf("what came back (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := h.drop("a"); err != nil {
			t.Error(err)
		}
	}
	if files, err := h.recall("a"); err != nil || len(files) != 0 {
		t.Errorf("recall after drop: %v, %v", files, err)
	}
}

func TestHolderComesBackWhenKilled(t *testing.T) {
	h := startTestHolder(t, shortTempDir(t))
	files := map[string]*os.File{streamStdout: pipeFile(t, "x")}
	for i := range 40 {
		if err := h.hold("/proc/self/fd/../fd#"+strconv.Itoa(i), files); err != nil {
			t.Fatal(err)
		}
	}
	first := h.childPID()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Nobody asks anything of it: the loss itself is noticed.
	eventually(t, "another holder", func() bool { pid := h.childPID(); return pid != 0 && pid != first })
	if n := len(h.keys(t)); n != 40 {
		t.Errorf("the new holder has %d of 40", n)
	}
	if err := unix.Kill(h.childPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.hold("b", files); err != nil { // in the middle of it
		t.Fatal(err)
	}
	if n := len(h.keys(t)); n != 41 {
		t.Errorf("the third holder has %d of 41", n)
	}
}

func TestHolderForgetsWhatIsGone(t *testing.T) {
	dir := shortTempDir(t)
	here := filepath.Join(dir, "here")
	if err := os.Mkdir(here, 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]*os.File{streamStdout: pipeFile(t, "x")}
	killed := startTestHolder(t, dir)
	if err := errors.Join(killed.hold(here, files), killed.hold(filepath.Join(dir, "gone"), files)); err != nil {
		t.Fatal(err)
	}
	next := startTestHolder(t, dir)
	next.log = quiet()
	if err := next.hold(here, files); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only what exists is held", func() bool { return cmp.Equal([]string{here}, next.keys(t)) })
}

func TestHolderEndsWhenNotNeeded(t *testing.T) {
	dir := shortTempDir(t)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, "hold.sock"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	hd := &holding{listener: l, keep: map[string]heldFiles{}, idle: 50 * time.Millisecond}
	ended := make(chan error, 1)
	go func() { ended <- hd.serve() }()
	h := NewHolder(dir, []string{"/bin/false"}, quiet())
	if err := h.hold(dir, map[string]*os.File{streamStdout: pipeFile(t, "x")}); err != nil {
		t.Fatal(err)
	}
	h.forget(dir)
	if err := h.Close(); err != nil { // the agent ends; the container does not
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("the holder ended with something to hold: %v", err)
	case <-time.After(150 * time.Millisecond):
	}
	next := NewHolder(dir, []string{"/bin/false"}, quiet())
	if err := errors.Join(next.drop(dir), next.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the holder ended with %v", err)
	}
}

func TestHolderRefusesNonsense(t *testing.T) {
	h := startTestHolder(t, shortTempDir(t))
	if err := h.hold("a", map[string]*os.File{streamStdout: pipeFile(t, "x")}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []holdMessage{{verb: "steal", key: "a"}, {verb: verbHold}, {verb: ""}} {
		_, _, err := h.ask(m, nil, false)
		if _, ok := errors.AsType[*holdError](err); !ok {
			t.Errorf("%q was answered with %v", m, err)
		}
	}
	if diff := cmp.Diff([]string{"a"}, h.keys(t)); diff != "" {
		t.Errorf("after nonsense (-want +got):\n%s", diff)
	}
}

func TestHolderThatDoesNotStart(t *testing.T) {
	cfg := testIOConfig(t)
	cfg.Holder = NewHolder(t.TempDir(), []string{"/does/not/exist"}, quiet())
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	c, err := newContainerIO(cfg)
	if err != nil {
		t.Fatalf("a pod must not fail for want of a holder: %v", err)
	}
	if !strings.Contains(log.String(), "not held") {
		t.Errorf("nobody is told: %s", log.String())
	}
	if err := errors.Join(c.Remove(), cfg.Holder.Close()); err != nil {
		t.Error(err)
	}
}

func TestHolderStaysSmall(t *testing.T) {
	h := startTestHolder(t, shortTempDir(t))
	files := map[string]*os.File{streamStdout: pipeFile(t, "x"), streamStderr: pipeFile(t, "y")}
	hold := func(from, to int) int {
		for i := from; i < to; i++ {
			if err := h.hold(fmt.Sprintf("/proc/self/%064d", i), files); err != nil {
				t.Fatal(err)
			}
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.childPID()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "RssAnon:")
		kB, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		return kB
	}
	few, many := hold(0, 10), hold(10, 260)
	t.Logf("%d kB with 10 containers, %d kB with 260", few, many)
	if many-few > 8<<10 { // how much there is to begin with depends on the binary
		t.Errorf("250 containers cost the holder %d kB", many-few)
	}
}

func startPump(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	argv := helper("pump", dir)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}
