package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait, so that a defect ends the run instead of hanging it.
const patience = 3 * time.Minute

// process is a program under measurement; its output is in a file.
type process struct {
	cmd *exec.Cmd
	log string
}

func startProcess(log string, command ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{cmd: exec.Command(command[0], command[1:]...), log: log}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) end(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("end %s: %w", p.cmd.Path, err)
	}
	_ = p.cmd.Wait() // reports the signal
	return nil
}

// explain adds the end of the process's output to an error.
func (p *process) explain(err error) error {
	if err == nil {
		return nil
	}
	text, readErr := os.ReadFile(p.log)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	const last = 3000
	return fmt.Errorf("%w\nthe last of %s:\n%s", err, p.log, text[max(0, len(text)-last):])
}

// until waits for ok, which it asks every so often.
func until(ctx context.Context, every time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// processes are all in our PID namespace, by name.
func processes() (map[int]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	all := map[int]string{}
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			return nil, err
		}
		if name, err := os.ReadFile(f); err == nil { // else it has ended meanwhile
			all[pid] = strings.TrimSpace(string(name))
		}
	}
	return all, nil
}

// shims are the shims that run, as descriptors to wait on.
func shims() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var fds []int
	for pid, name := range all {
		if !strings.HasPrefix(name, "containerd-shim") {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open shim %d: %w", pid, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// awaitEnd waits until the processes behind descriptors have ended. It costs
// nothing, which looking for them again and again would.
func awaitEnd(fds []int) error {
	deadline := time.Now().Add(patience)
	for i := 0; i < len(fds); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fds[i]), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("%d shims have not ended after %s", len(fds)-i, patience)
		default:
			_ = unix.Close(fds[i]) // only watched
			i++
		}
	}
	return nil
}

// cpuTime is the CPU time of a process so far; schedstat counts in nanoseconds,
// where stat counts in ticks of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range tasks {
		data, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has ended
		}
		ran, _, _ := strings.Cut(string(data), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", t, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// memory is the resident memory of a process in MB, and its share of that when
// pages that others have too are divided between them.
func memory(pid int) (resident, share float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Rss:" && f[0] != "Pss:" {
			continue
		}
		kb, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		if f[0] == "Rss:" {
			resident = kb * 1024 / 1e6
		} else {
			share = kb * 1024 / 1e6
		}
	}
	return resident, share, nil
}
