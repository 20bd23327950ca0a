package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// big is the number of pods from which on idleness and adoption are measured.
const big = 100

// restartsMeasured is how many containers of a round are killed at most.
const restartsMeasured = 10

// settled is how long the newest container gets until it has come to where it
// hears a signal: an init has none of the default actions.
const settled = time.Second

// rounds is how often a number of pods is started and stopped: few pods are over
// so soon that one round says little.
func rounds(pods int) int { return max(1, min(10, 30/pods)) }

// measureAll takes the figures of every subject for one number of pods, on a
// fresh containerd.
func measureAll(ctx context.Context, o options, pods int, report *report) (err error) {
	m, err := newMachine(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := report.describe(ctx, m); err != nil {
		return err
	}
	makers := []func(*machine) (*subject, error){func(m *machine) (*subject, error) { return newAgent(m) }}
	if _, err := os.Stat(o.kubelet); err == nil {
		makers = append(makers, newKubelet)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for i, make := range makers {
		s, err := make(m)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s: %d pods\n", s.name, pods)
		if err := m.measure(ctx, s, pods, report); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if i > 0 {
			continue
		}
		fmt.Fprintf(os.Stderr, "floor: %d pods\n", pods) // between the two, so that it is near to both
		if err := m.measureFloor(ctx, pods, report); err != nil {
			return fmt.Errorf("floor: %w", err)
		}
	}
	return nil
}

// measure takes the figures of one subject.
func (m *machine) measure(ctx context.Context, s *subject, pods int, report *report) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	w := m.watch(ctx, s.namespace)
	defer w.close()
	if _, err := m.round(ctx, s, w, 1, nil); err != nil { // files are in memory, the network exists
		return fmt.Errorf("first pod: %w", s.proc.explain(err))
	}
	last := pods == slices.Max(m.o.counts)
	if pods == slices.Min(m.o.counts) {
		u, err := m.idle(ctx, s)
		if err != nil {
			return err
		}
		report.Idle = append(report.Idle, idleRow{Subject: s.name, Usage: u})
	}
	r := row{Subject: s.name, Pods: pods}
	for i := range rounds(pods) {
		f, err := m.round(ctx, s, w, pods, func(up []started) error {
			if i > 0 || (pods < big && !last) {
				return nil
			}
			return m.lookCloser(ctx, s, w, up, &r, report)
		})
		if err != nil {
			return s.proc.explain(err)
		}
		r.rounds = append(r.rounds, f)
	}
	r.summarize()
	report.Rows = append(report.Rows, r)
	return s.end()
}

// lookCloser takes the figures of many pods that do nothing.
func (m *machine) lookCloser(ctx context.Context, s *subject, w *watcher, up []started, r *row, report *report) error {
	u, err := m.idle(ctx, s)
	if err != nil {
		return err
	}
	if u.PerPod, err = m.processesPerPod(s, len(up)); err != nil {
		return err
	}
	report.Idle = append(report.Idle, idleRow{Subject: s.name, Pods: len(up), Usage: u})
	r.AdoptSeconds, err = m.adopt(ctx, s, w, len(up))
	return err
}

// round starts pods, has a look at them, kills some containers and stops all.
func (m *machine) round(ctx context.Context, s *subject, w *watcher, pods int, look func([]started) error) (figures, error) {
	first := s.written
	begin := time.Now()
	for range pods {
		if _, err := s.write(); err != nil {
			return figures{}, err
		}
	}
	var f figures
	var up []started
	for len(up) < pods {
		c, err := w.next(ctx)
		if err != nil {
			return f, err
		}
		up = append(up, c)
		f.start = append(f.start, c.at.Sub(begin))
	}
	if err := s.running(ctx, pods); err != nil {
		return f, err
	}
	if look != nil {
		if err := look(up); err != nil {
			return f, err
		}
	}
	var err error
	if f.restart, err = kill(ctx, w, up); err != nil {
		return f, err
	}
	if err := s.running(ctx, pods); err != nil {
		return f, err
	}
	if err := pause(ctx, settled); err != nil {
		return f, err
	}
	fds, err := shims()
	if err != nil {
		return f, err
	}
	if len(fds) != pods {
		return f, fmt.Errorf("%d pods have %d shims", pods, len(fds))
	}
	begin = time.Now()
	for i := range pods {
		if err := os.Remove(s.file(first + i)); err != nil {
			return f, err
		}
	}
	if err := awaitEnd(fds); err != nil {
		return f, err
	}
	f.stop = time.Since(begin)
	return f, s.running(ctx, 0)
}

// kill ends the processes of some containers, one after the other, and returns
// how long each container was not running.
func kill(ctx context.Context, w *watcher, up []started) ([]time.Duration, error) {
	var out []time.Duration
	for _, c := range up[:min(len(up), restartsMeasured)] {
		begin := time.Now()
		if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
			return nil, fmt.Errorf("kill the container of %s: %w", c.pod, err)
		}
		again, err := w.next(ctx)
		if err != nil {
			return nil, err
		}
		if again.pod != c.pod {
			return nil, fmt.Errorf("killed the container of %s, and that of %s started", c.pod, again.pod)
		}
		out = append(out, again.at.Sub(begin))
	}
	return out, nil
}

// adopt kills the subject and returns how long a new one needs until it says that
// all pods run. No container may start meanwhile.
func (m *machine) adopt(ctx context.Context, s *subject, w *watcher, pods int) (float64, error) {
	if err := s.proc.end(syscall.SIGKILL); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := s.start(ctx); err != nil {
		return 0, err
	}
	if err := s.running(ctx, pods); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	select {
	case c := <-w.starts:
		return 0, fmt.Errorf("a container of %s started while its pod was taken over", c.pod)
	default:
	}
	return took.Seconds(), nil
}

// processesPerPod is how many processes there are for each pod besides its own:
// all there are, without the bench, containerd, the subject and the containers.
func (m *machine) processesPerPod(s *subject, pods int) (float64, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	rest := 0
	for pid := range all {
		if pid != 1 && pid != os.Getpid() && pid != m.containerd.pid() && pid != s.proc.pid() {
			rest++
		}
	}
	return float64(rest-pods) / float64(pods), nil
}

// idle watches a subject and containerd while nothing happens.
func (m *machine) idle(ctx context.Context, s *subject) (usage, error) {
	pids := []int{m.containerd.pid()}
	if s != nil {
		helpers, err := s.helpers()
		if err != nil {
			return usage{}, err
		}
		pids = append(append(pids, s.proc.pid()), helpers...)
	}
	if err := pause(ctx, 3*time.Second); err != nil { // what was just done is over
		return usage{}, err
	}
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		var err error
		if before[i], err = cpuTime(pid); err != nil {
			return usage{}, err
		}
	}
	begin := time.Now()
	if err := pause(ctx, m.o.idle); err != nil {
		return usage{}, err
	}
	took := time.Since(begin)
	var u usage
	for i, pid := range pids {
		after, err := cpuTime(pid)
		if err != nil {
			return u, err
		}
		resident, share, err := memory(pid)
		if err != nil {
			return u, err
		}
		percent := 100 * (after - before[i]).Seconds() / took.Seconds()
		switch i {
		case 0:
			u.ContainerdCPU, u.ContainerdRSS = percent, resident
		case 1:
			u.CPU, u.RSS = percent, resident
		default:
			u.CPU, u.Helpers = u.CPU+percent, u.Helpers+share
		}
	}
	return u, nil
}

// helpers are the processes that a subject has started for itself.
func (s *subject) helpers() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var pids []int
	for pid := range all {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && pid != s.proc.pid() && strings.HasSuffix(target, s.executable()) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
