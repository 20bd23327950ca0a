package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

const (
	// embeddedReady bounds the start of the embedded containerd.
	embeddedReady = 30 * time.Second
	embeddedPoll  = 10 * time.Millisecond
	// embeddedCheck is how often a running one is looked at; its end is no event
	// for an agent that did not start it.
	embeddedCheck = 2 * time.Second
	embeddedDelay = time.Second
)

// Embedded is a containerd that belongs to the agent: everything of it is below
// Dir. It survives the agent, which finds it again by its process ID and start
// time; it is ended by Stop alone.
type Embedded struct {
	Dir string
	// BinDirs are where containerd, its shim and runc are.
	BinDirs []string
	Log     *slog.Logger
}

// Address is its socket.
func (e *Embedded) Address() string { return filepath.Join(e.Dir, "containerd.sock") }

func (e *Embedded) pidFile() string { return filepath.Join(e.Dir, "containerd.pid") }

// Ensure starts containerd unless it runs, and returns when it answers.
func (e *Embedded) Ensure(ctx context.Context) error {
	if pid := e.pid(); pid == 0 {
		if err := e.start(); err != nil {
			return err
		}
	} else {
		e.Log.Info("embedded containerd adopted", "pid", pid)
	}
	ctx, cancel := context.WithTimeout(ctx, embeddedReady)
	defer cancel()
	for {
		err := e.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("embedded containerd does not answer (see %s): %w", e.logFile(), err)
		case <-time.After(embeddedPoll):
		}
		if e.pid() == 0 {
			return fmt.Errorf("embedded containerd has ended at its start: see %s", e.logFile())
		}
	}
}

// Run starts containerd again when it ends, until ctx ends. It is left running.
func (e *Embedded) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(embeddedCheck):
		}
		if e.pid() != 0 {
			continue
		}
		e.Log.Error("embedded containerd has ended; starting it again", "log", e.logFile())
		if err := e.Ensure(ctx); err != nil && ctx.Err() == nil {
			e.Log.Error("embedded containerd not started", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(embeddedDelay):
			}
		}
	}
}

// Stop ends containerd. Its containers are not touched.
func (e *Embedded) Stop(ctx context.Context) error {
	pid := e.pid()
	if pid == 0 {
		return nil
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop embedded containerd: %w", err)
	}
	for e.pid() != 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("embedded containerd does not end: %w", ctx.Err())
		case <-time.After(embeddedPoll):
		}
	}
	return nil
}

func (e *Embedded) logFile() string { return filepath.Join(e.Dir, "containerd.log") }

func (e *Embedded) answers(ctx context.Context) error {
	client, err := containerd.New(e.Address(), containerd.WithTimeout(time.Second))
	if err != nil {
		return err
	}
	_, err = client.Version(ctx)
	return errors.Join(err, client.Close())
}

// pid is the process ID of our containerd, or 0 when it does not run.
func (e *Embedded) pid() int {
	data, err := os.ReadFile(e.pidFile())
	if err != nil {
		return 0
	}
	var pid int
	var started string
	if _, err := fmt.Sscan(string(data), &pid, &started); err != nil {
		return 0
	}
	if now, state, err := startTime(pid); err != nil || now != started || state == "Z" {
		return 0
	}
	return pid
}

// startTime is when a process started, in ticks since boot, and its state; with
// the process ID it tells a process from a later one.
func startTime(pid int) (started, state string, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", "", err
	}
	_, rest, found := strings.Cut(string(data), ") ") // the name may hold anything
	f := strings.Fields(rest)
	if !found || len(f) < 20 {
		return "", "", fmt.Errorf("process %d: unexpected stat", pid)
	}
	return f[19], f[0], nil
}

func (e *Embedded) start() error {
	if err := os.MkdirAll(e.Dir, 0o711); err != nil {
		return err
	}
	binary, err := LookBinary("containerd", e.BinDirs)
	if err != nil {
		return err
	}
	config := filepath.Join(e.Dir, "config.toml")
	if err := os.WriteFile(config, []byte(e.config()), 0o600); err != nil {
		return err
	}
	if err := os.Remove(e.Address()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(e.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(binary, "--config", config)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH="+strings.Join(append(e.BinDirs, os.Getenv("PATH")), ":"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no signal to the agent's group reaches it
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start embedded containerd: %w", err)
	}
	pid := cmd.Process.Pid
	started, _, err := startTime(pid)
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // only so that no zombie stays; it ends with containerd or with us
	e.Log.Info("embedded containerd started", "pid", pid)
	return writeFileAtomically(e.pidFile(), []byte(fmt.Sprintf("%d %s\n", pid, started)), 0o600)
}

// config turns off what a node agent does not use, so that it costs nothing.
func (e *Embedded) config() string {
	return fmt.Sprintf(`version = 3
root = %[1]q
state = %[2]q
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
  "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.native", "io.containerd.differ.v1.erofs", "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.podsandbox.controller.v1.podsandbox",
]

[grpc]
  address = %[3]q

[ttrpc]
  address = %[4]q

[debug]
  level = "warn"
`, filepath.Join(e.Dir, "root"), filepath.Join(e.Dir, "state"), e.Address(), e.Address()+".ttrpc")
}

// LookBinary finds a program of the runtime in dirs, then in PATH.
func LookBinary(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s not found in %s nor in PATH: install it, or name its directory with --runtime-bin-dir", name, strings.Join(dirs, ", "))
	}
	return path, nil
}
