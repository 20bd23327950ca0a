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
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// embeddedStart bounds the time from the start of containerd to its first
	// answer, on a machine that is busy with other things.
	embeddedStart = time.Minute
	// embeddedStop is how long containerd has to end before it is killed.
	embeddedStop = 10 * time.Second
	// A containerd that dies is started again after a pause that doubles, and is
	// forgotten once it has lived for embeddedSteady.
	embeddedMinPause = 100 * time.Millisecond
	embeddedMaxPause = 30 * time.Second
	embeddedSteady   = time.Minute
	// embeddedTidy is how often its log is looked at.
	embeddedTidy = 5 * time.Minute
)

// Embedded is a containerd of our own: started by the agent, in a session of its
// own so that it outlives it, and taken over by the next agent. It never touches
// the machine's containerd.
//
//	Dir/root            images, snapshots, records
//	Dir/config.toml     written at each start
//	Dir/containerd.log  its own log
//	State               sockets, process id, running containers
//
// Containers do not depend on it: their shims go on while it is away.
type Embedded struct {
	Dir string
	// State does not outlive a reboot; empty means Dir/state.
	State    string
	BinDirs  []string // where containerd, its shim and runc are; searched before PATH
	LogLevel string   // of containerd; empty means info
	Log      *slog.Logger
}

// Address is containerd's socket.
func (e *Embedded) Address() string { return filepath.Join(e.state(), "containerd.sock") }

// Ensure returns when containerd answers: the one that runs already, or a new one.
func (e *Embedded) Ensure(ctx context.Context) error {
	d, err := e.ensure(ctx)
	if err != nil {
		return fmt.Errorf("embedded containerd: %w", err)
	}
	return d.close()
}

// Run starts containerd again whenever it ends, until ctx does. Then containerd
// goes on.
func (e *Embedded) Run(ctx context.Context) error {
	pause := embeddedMinPause
	for {
		d, err := e.ensure(ctx)
		if ctx.Err() != nil {
			return errors.Join(d.close())
		}
		began := time.Now()
		if err != nil {
			e.Log.Error("containerd does not start", "err", err, "again", pause)
		} else {
			e.attend(ctx, d)
			if err := d.close(); err != nil || ctx.Err() != nil {
				return err
			}
			e.Log.Warn("containerd has ended; starting it again", "pid", d.pid)
		}
		if time.Since(began) > embeddedSteady {
			pause = embeddedMinPause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, embeddedMaxPause)
	}
}

// attend returns when containerd or ctx has ended, and keeps its log short
// meanwhile.
func (e *Embedded) attend(ctx context.Context, d *daemon) {
	for ctx.Err() == nil {
		if err := tidyDaemonLog(e.logPath()); err != nil {
			e.Log.Warn("tidy up containerd's log", "err", err)
		}
		pause, cancel := context.WithTimeout(ctx, embeddedTidy)
		ended := d.wait(pause)
		cancel()
		if ended {
			return
		}
	}
}

// ensure takes over the containerd that runs or starts one.
func (e *Embedded) ensure(ctx context.Context) (*daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, embeddedStart)
	defer cancel()
	if err := e.prepare(); err != nil {
		return nil, err
	}
	d, err := e.running()
	if err != nil {
		return nil, err
	}
	if d != nil {
		stays, err := e.takeOver(ctx, d)
		if err != nil {
			return nil, err
		}
		if stays {
			return d, nil
		}
	}
	return e.start(ctx)
}

// takeOver says whether the containerd of an earlier agent stays. One that does
// not answer has ended afterwards, and so has one of another version than ours.
// Unless it stays, d is closed.
func (e *Embedded) takeOver(ctx context.Context, d *daemon) (stays bool, err error) {
	err = awaitHealth(ctx, e.Address(), d)
	outdated := err == nil && e.outdated(d) && e.replaceable(ctx, d)
	if err == nil && !outdated {
		if err := e.keepPID(d); err != nil {
			return false, errors.Join(err, d.close())
		}
		e.Log.Info("containerd taken over", "pid", d.pid)
		return true, nil
	}
	if errors.Is(ctx.Err(), context.Canceled) { // the agent ends; containerd goes on
		return false, errors.Join(ctx.Err(), err, d.close())
	}
	grace := time.Duration(0)
	if outdated {
		grace = embeddedStop
		e.Log.Info("containerd runs in another version; ending it, the containers go on", "pid", d.pid)
	} else {
		e.Log.Warn("containerd runs but does not answer; ending it", "pid", d.pid, "err", err)
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := errors.Join(d.end(ctx, grace), d.close()); err != nil {
		return false, fmt.Errorf("end containerd %d: %w", d.pid, err)
	}
	return false, nil
}

// prepare makes the directories, without what a boot of the machine has made
// meaningless.
func (e *Embedded) prepare() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	marker := filepath.Join(e.state(), "boot")
	before, err := os.ReadFile(marker)
	if err == nil && string(before) != boot {
		err = os.RemoveAll(e.state())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, dir := range []string{e.Dir, e.state()} {
		if err := os.MkdirAll(dir, 0o711); err != nil { // user namespaces pass through
			return err
		}
	}
	if string(before) == boot {
		return nil
	}
	return writeFileAtomically(marker, []byte(boot), 0o600)
}

// running finds the containerd of an earlier agent: by the socket, whose owner
// the kernel knows, or by the process id it was started with. Nil means none.
func (e *Embedded) running() (*daemon, error) {
	pid, err := socketOwner(e.Address())
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", e.Address(), err)
	}
	if pid != 0 {
		return openDaemon(pid)
	}
	data, err := os.ReadFile(e.pidPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var id string
	if n, err := fmt.Sscanf(string(data), "%d %s", &pid, &id); n != 2 || err != nil {
		return nil, nil // half written when the machine went down
	}
	d, err := openDaemon(pid)
	if d == nil || err != nil {
		return nil, err
	}
	// The number may belong to another process by now.
	if now, err := processID(pid); err != nil || now != id {
		return nil, d.close()
	}
	return d, nil
}

// keepPID writes down which process containerd is.
func (e *Embedded) keepPID(d *daemon) error {
	id, err := processID(d.pid)
	if err != nil {
		return fmt.Errorf("process %d: %w", d.pid, err)
	}
	return writeFileAtomically(e.pidPath(), fmt.Appendf(nil, "%d %s\n", d.pid, id), 0o644)
}

// Stop ends containerd and removes its sockets. None that runs is success. The
// containers must have been stopped before: without it nobody can.
func (e *Embedded) Stop(ctx context.Context) error {
	d, err := e.running()
	if err == nil && d != nil {
		err = errors.Join(d.end(ctx, embeddedStop), d.close())
	}
	if err != nil {
		return fmt.Errorf("stop embedded containerd: %w", err)
	}
	var errs []error
	for _, path := range []string{e.pidPath(), e.Address(), e.ttrpcAddress(), e.notifyPath()} {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (e *Embedded) state() string {
	if e.State == "" {
		return filepath.Join(e.Dir, "state")
	}
	return e.State
}

func (e *Embedded) pidPath() string      { return filepath.Join(e.state(), "containerd.pid") }
func (e *Embedded) notifyPath() string   { return filepath.Join(e.state(), "notify.sock") }
func (e *Embedded) ttrpcAddress() string { return e.Address() + ".ttrpc" }
func (e *Embedded) logPath() string      { return filepath.Join(e.Dir, "containerd.log") }
func (e *Embedded) configPath() string   { return filepath.Join(e.Dir, "config.toml") }

// searchPath is where containerd looks for its shim, and that for runc.
func (e *Embedded) searchPath() string {
	path := strings.Join(e.BinDirs, ":")
	if own := os.Getenv("PATH"); own != "" {
		path += ":" + own
	}
	return path
}

// LookBinary finds an executable file in dirs or else in PATH.
func LookBinary(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err == nil && info.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
	}
	file, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither in %s nor in PATH; install it, or name its directory with --runtime-bin-dir: %w", name, strings.Join(dirs, ", "), err)
	}
	return file, nil
}
