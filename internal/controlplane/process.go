package controlplane

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

// spawn starts program in a session of its own, and records its PID.
func (p *Plane) spawn(program string, args ...string) error {
	if p.alive(program) {
		return nil
	}
	log, err := os.OpenFile(p.file(program+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(p.opts.BinDir, program), args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w; hack/build-peers.sh %s builds it", program, err, program)
	}
	return os.WriteFile(p.file(program+".pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// end stops program: politely, then not.
func (p *Plane) end(program string, patience time.Duration) error {
	pid, err := p.pid(program)
	if err != nil || pid == 0 {
		return err
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !p.alive(program) {
			break
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %s: %w", program, err)
		}
		for deadline := time.Now().Add(patience); p.alive(program) && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if p.alive(program) {
		return fmt.Errorf("%s, process %d, does not end", program, pid)
	}
	return os.Remove(p.file(program + ".pid"))
}

// alive says whether the recorded process runs and is still the one recorded.
func (p *Plane) alive(program string) bool {
	pid, err := p.pid(program)
	if err != nil || pid == 0 {
		return false
	}
	// A child of this process that has ended would stay as a zombie.
	_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(cmdline, []byte(p.dir)) // a zombie's is empty
}

// pid is the recorded one, 0 when there is none.
func (p *Plane) pid(program string) (int, error) {
	data, err := os.ReadFile(p.file(program + ".pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// died says why program has ended, nil while it runs.
func (p *Plane) died(program string) error {
	if p.alive(program) {
		return nil
	}
	log, err := os.ReadFile(p.file(program + ".log"))
	if err != nil {
		return err
	}
	return fmt.Errorf("%s has ended:\n%s", program, log[max(0, len(log)-2000):])
}
