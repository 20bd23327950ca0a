package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
)

// agentNamespace is the containerd namespace that the agent uses by default.
const agentNamespace = "nodeagent"

// watcher sees containers start in containerd's own event stream, which is
// independent of what the agent says.
type watcher struct {
	client *containerd.Client
	starts chan start
	cancel context.CancelFunc
}

type start struct {
	pod string // name from the container's labels
	id  string
	pid uint32
	at  time.Time
}

func (b *bed) watch(ctx context.Context) (*watcher, error) {
	client, err := containerd.New(b.dir+"/ctd/containerd.sock", containerd.WithDefaultNamespace(agentNamespace))
	if err != nil {
		return nil, fmt.Errorf("connect to the agent's containerd: %w", err)
	}
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(ctx, agentNamespace))
	w := &watcher{client: client, starts: make(chan start, 4096), cancel: cancel}
	events, _ := client.Subscribe(ctx, `topic=="/tasks/start",namespace==`+agentNamespace)
	go func() {
		for e := range events {
			at := e.Timestamp
			v, err := typeurl.UnmarshalAny(e.Event)
			if err != nil {
				continue
			}
			s, isStart := v.(*eventsapi.TaskStart)
			if !isStart {
				continue
			}
			c, err := client.ContainerService().Get(ctx, s.ContainerID)
			if err != nil {
				continue
			}
			w.starts <- start{pod: c.Labels["io.kubernetes.pod.name"], id: s.ContainerID, pid: s.Pid, at: at}
		}
	}()
	return w, nil
}

func (w *watcher) close() {
	w.cancel()
	_ = w.client.Close() // the run is over; nothing depends on it
}

// next returns the first start of one of the wanted pods.
func (w *watcher) next(ctx context.Context, wanted map[string]time.Time) (start, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return start{}, fmt.Errorf("%d pods have not started: %w", len(wanted), context.Cause(ctx))
		case s := <-w.starts:
			if _, ok := wanted[s.pod]; ok {
				return s, nil
			}
		}
	}
}

// warm runs one pod to its end, so that the image is unpacked and the files are
// in memory: every figure is of a warm machine.
func (b *bed) warm(ctx context.Context, w *watcher) error {
	if err := b.manifest("warm"); err != nil {
		return err
	}
	if _, err := w.next(ctx, map[string]time.Time{"warm-node": {}}); err != nil {
		return err
	}
	if err := os.Remove(b.dir + "/manifests/warm.yaml"); err != nil {
		return err
	}
	return until(ctx, "the warm-up pod is gone", func() (bool, error) {
		pods, err := b.pods(ctx)
		return len(pods) == 0 && b.shims() == 0, err
	})
}

// startPods writes n manifests and returns, for each pod, the time from its
// manifest to its running container.
func (b *bed) startPods(ctx context.Context, w *watcher, n int) ([]time.Duration, error) {
	written := map[string]time.Time{}
	begin := time.Now()
	for i := range n {
		name := fmt.Sprintf("p%03d", i)
		if err := b.manifest(name); err != nil {
			return nil, err
		}
		written[name+"-node"] = time.Now()
	}
	var out []time.Duration
	for len(written) > 0 {
		s, err := w.next(ctx, written)
		if err != nil {
			return nil, err
		}
		delete(written, s.pod)
		out = append(out, s.at.Sub(begin))
	}
	return out, nil
}

// restarts kills the process of n pods, one after the other, and returns how
// long each was not running.
func (b *bed) restarts(ctx context.Context, w *watcher, n int) ([]time.Duration, error) {
	ctx = namespaces.WithNamespace(ctx, agentNamespace)
	var out []time.Duration
	for i := range n {
		pod := fmt.Sprintf("p%03d-node", i)
		containers, err := w.client.Containers(ctx, fmt.Sprintf(`labels."io.kubernetes.pod.name"==%s`, pod))
		if err != nil || len(containers) == 0 {
			return nil, fmt.Errorf("find the container of %s: %w", pod, err)
		}
		task, err := containers[0].Task(ctx, nil)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := task.Kill(ctx, syscall.SIGKILL); err != nil {
			return nil, err
		}
		s, err := w.next(ctx, map[string]time.Time{pod: {}})
		if err != nil {
			return nil, err
		}
		out = append(out, s.at.Sub(begin))
	}
	return out, nil
}

// adopt kills the agent and returns how long a new one needs until it shows all
// pods as running.
func (b *bed) adopt(ctx context.Context, n int) (time.Duration, error) {
	if err := b.endAgent(syscall.SIGKILL); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := b.startAgent(ctx); err != nil {
		return 0, err
	}
	err := until(ctx, "all pods are adopted", func() (bool, error) {
		pods, err := b.pods(ctx)
		running := 0
		for _, p := range pods {
			if p.Status.Phase == "Running" {
				running++
			}
		}
		return running == n, err
	})
	return time.Since(begin), err
}

// stopPods removes all manifests and returns how long it takes until the last
// shim has ended.
func (b *bed) stopPods(ctx context.Context, _ *watcher, n int) (time.Duration, error) {
	begin := time.Now()
	for i := range n {
		if err := os.Remove(fmt.Sprintf("%s/manifests/p%03d.yaml", b.dir, i)); err != nil {
			return 0, err
		}
	}
	err := until(ctx, "all pods are gone", func() (bool, error) {
		return b.shims() == 0, nil
	})
	return time.Since(begin), err
}

// shims counts the shims of this bed's containerd.
func (b *bed) shims() int {
	return len(b.processes(func(cmdline string) bool {
		return strings.Contains(cmdline, "containerd-shim") && strings.Contains(cmdline, b.dir)
	}))
}

// processes lists those whose command line is wanted.
func (b *bed) processes(wanted func(string) bool) []int {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var pids []int
	for _, d := range dirs {
		cmdline, err := os.ReadFile(d + "/cmdline")
		if err != nil || !wanted(string(cmdline)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// idle watches agent and containerd while nothing happens.
func (b *bed) idle(ctx context.Context, d time.Duration) (usage, error) {
	agents := b.processes(func(c string) bool {
		return strings.Contains(c, "run\x00--config\x00"+b.dir) && !strings.HasPrefix(c, "nsenter")
	})
	daemons := b.processes(func(c string) bool {
		return strings.Contains(c, b.dir+"/ctd") && !strings.Contains(c, "shim") && strings.Contains(c, "containerd\x00")
	})
	if len(agents) != 1 || len(daemons) != 1 {
		return usage{}, fmt.Errorf("found %d agents and %d containerds", len(agents), len(daemons))
	}
	select { // the last pod's start is over
	case <-ctx.Done():
		return usage{}, ctx.Err()
	case <-time.After(3 * time.Second):
	}
	a0, c0 := cpuTime(agents[0]), cpuTime(daemons[0])
	select {
	case <-ctx.Done():
		return usage{}, ctx.Err()
	case <-time.After(d):
	}
	percent := func(from, to time.Duration) float64 { return 100 * (to - from).Seconds() / d.Seconds() }
	return usage{
		AgentCPU: percent(a0, cpuTime(agents[0])), ContainerdCPU: percent(c0, cpuTime(daemons[0])),
		AgentRSS: rss(agents[0]), ContainerdRSS: rss(daemons[0]),
	}, nil
}

// cpuTime is the CPU time of a process so far; schedstat counts in nanoseconds,
// where stat counts in ticks of 10 ms.
func cpuTime(pid int) time.Duration {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, t := range tasks {
		data, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		if f := strings.Fields(string(data)); len(f) > 0 {
			ns, err := strconv.ParseInt(f[0], 10, 64)
			if err == nil {
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// rss is the resident memory of a process in MB.
func rss(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(data))[1], 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize()) / 1e6
}
