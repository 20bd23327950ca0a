// Package daemon runs programs that outlive the one that starts them, for tests
// and trials. Each has a file with its process ID and one with its output, by which
// a later process finds, asks and ends it.
package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Set are the programs of one directory, which each of them is told on its command
// line: it is how a process is known to be the one that was started.
type Set struct{ Dir string }

// LogFile is where the program called name writes.
func (s Set) LogFile(name string) string { return filepath.Join(s.Dir, name+".log") }

func (s Set) pidFile(name string) string { return filepath.Join(s.Dir, name+".pid") }

// Spawn starts a program in a session of its own, unless it runs.
func (s Set) Spawn(name, path string, args ...string) error {
	if s.Alive(name) {
		return nil
	}
	log, err := os.OpenFile(s.LogFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return os.WriteFile(s.pidFile(name), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// End stops a program: politely, then, when patience is over, not. One that does
// not run has ended.
func (s Set) End(name string, patience time.Duration) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := s.Signal(name, signal); err != nil {
			return err
		}
		for deadline := time.Now().Add(patience); s.Alive(name) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if s.Alive(name) {
		return fmt.Errorf("%s does not end", name)
	}
	if err := os.Remove(s.pidFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Signal sends a signal to a program, if it runs.
func (s Set) Signal(name string, signal syscall.Signal) error {
	pid, err := s.PID(name)
	if err != nil || !s.Alive(name) {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	return nil
}

// Alive says whether the process that was started runs.
func (s Set) Alive(name string) bool {
	pid, err := s.PID(name)
	if err != nil || pid == 0 {
		return false
	}
	// A child of this process that has ended would stay as a zombie.
	_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := bytes.TrimLeft(stat[bytes.LastIndexByte(stat, ')')+1:], " ")
	if bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X")) {
		return false
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	// For a moment of its start a program has no command line.
	return err == nil && (len(cmdline) == 0 || bytes.Contains(cmdline, []byte(s.Dir)))
}

// PID is the one that was recorded, 0 when there is none.
func (s Set) PID(name string) (int, error) {
	data, err := os.ReadFile(s.pidFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// Died says what a program wrote last if it has ended, and is nil while it runs.
func (s Set) Died(name string) error {
	if s.Alive(name) {
		return nil
	}
	return fmt.Errorf("%s has ended:\n%s", name, s.Tail(name, 2000))
}

// Tail is the end of what a program wrote.
func (s Set) Tail(name string, size int) string {
	data, err := os.ReadFile(s.LogFile(name))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-size):])
}
