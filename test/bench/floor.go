package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/netns"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/network"
)

// floorParallel is how many pods the bare loop starts at once.
const floorParallel = 4

// floor is the loop without an agent: the containerd and CNI calls that any
// runtime of pods must make. It has no cgroups of pods, no log files, no status,
// no limits and no memory of anything.
type floor struct {
	m     *machine
	image containerd.Image
	cni   *network.CNI
	pods  []*barePod
}

type barePod struct {
	name      string
	ns        *netns.NetNS
	container containerd.Container
	task      containerd.Task
}

// measureFloor takes the figures of the bare loop.
func (m *machine) measureFloor(ctx context.Context, pods int, report *report) error {
	ctx = namespaces.WithNamespace(ctx, floorNamespace)
	image, err := m.client.GetImage(ctx, podImage)
	if err != nil {
		return err
	}
	f := &floor{m: m, image: image, cni: network.New(network.Config{
		ConfDir: m.dir + "/cni", BinDirs: []string{m.tools + "/cni"}, CacheDir: m.dir + "/floor-cni",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})}
	if _, err := f.round(ctx, 1, nil); err != nil {
		return fmt.Errorf("first pod: %w", err)
	}
	r := row{Subject: "floor", Pods: pods}
	for i := range rounds(pods) {
		figures, err := f.round(ctx, pods, func() error {
			if i > 0 || (pods < big && pods != slices.Max(m.o.counts)) {
				return nil
			}
			u, err := m.idle(ctx, nil)
			u.PerPod = 1 // the shim
			report.Idle = append(report.Idle, idleRow{Subject: r.Subject, Pods: pods, Usage: u})
			return err
		})
		if err != nil {
			return err
		}
		r.rounds = append(r.rounds, figures)
	}
	r.summarize()
	report.Rows = append(report.Rows, r)
	return nil
}

// round starts pods, restarts some containers and stops all.
func (f *floor) round(ctx context.Context, pods int, look func() error) (figures, error) {
	var out figures
	f.pods, out.start = make([]*barePod, pods), make([]time.Duration, pods)
	begin := time.Now()
	err := f.each(ctx, func(ctx context.Context, i int) error {
		p, err := f.start(ctx, fmt.Sprintf("floor%03d", i))
		f.pods[i], out.start[i] = p, time.Since(begin)
		return err
	})
	if err != nil {
		return out, err
	}
	if look != nil {
		if err := look(); err != nil {
			return out, err
		}
	}
	for _, p := range f.pods[:min(pods, restartsMeasured)] {
		took, err := p.restart(ctx)
		if err != nil {
			return out, fmt.Errorf("restart %s: %w", p.name, err)
		}
		out.restart = append(out.restart, took)
	}
	if err := pause(ctx, settled); err != nil {
		return out, err
	}
	fds, err := shims()
	if err != nil {
		return out, err
	}
	begin = time.Now()
	err = f.each(ctx, func(ctx context.Context, i int) error { return f.stop(ctx, f.pods[i]) })
	err = errors.Join(err, awaitEnd(fds))
	out.stop = time.Since(begin)
	return out, err
}

func (f *floor) each(ctx context.Context, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(floorParallel)
	for i := range f.pods {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

func (f *floor) start(ctx context.Context, name string) (*barePod, error) {
	ns, err := netns.NewNetNS(filepath.Join(f.m.dir, "floor-ns"))
	if err != nil {
		return nil, err
	}
	p := &barePod{name: name, ns: ns}
	if _, _, err := f.cni.Add(ctx, p.name, p.ns.GetPath(), "", p.pod()); err != nil {
		return p, err
	}
	p.container, err = f.m.client.NewContainer(ctx, name,
		containerd.WithNewSnapshot(name, f.image),
		containerd.WithRuntime("io.containerd.runc.v2", &runcoptions.Options{BinaryName: f.m.tools + "/bin/runc"}),
		containerd.WithNewSpec(
			oci.WithImageConfig(f.image), oci.WithProcessArgs(podCommand()...), oci.WithCgroup(filepath.Join(f.m.cgroup, name)),
			oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: ns.GetPath()}),
		))
	if err != nil {
		return p, err
	}
	return p, p.run(ctx)
}

func (p *barePod) run(ctx context.Context) error {
	var err error
	if p.task, err = p.container.NewTask(ctx, cio.NullIO); err != nil {
		return err
	}
	return p.task.Start(ctx)
}

// pod is what CNI wants to know.
func (p *barePod) pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "floor", Name: p.name, UID: types.UID(p.name)}}
}

// restart kills the process and returns how long there is none.
func (p *barePod) restart(ctx context.Context) (time.Duration, error) {
	exit, err := p.task.Wait(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := syscall.Kill(int(p.task.Pid()), syscall.SIGKILL); err != nil {
		return 0, err
	}
	<-exit
	if _, err := p.task.Delete(ctx); err != nil {
		return 0, err
	}
	err = p.run(ctx)
	return time.Since(begin), err
}

func (f *floor) stop(ctx context.Context, p *barePod) error {
	exit, err := p.task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := p.task.Kill(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-exit:
	case <-time.After(patience):
		return fmt.Errorf("%s does not end", p.name)
	}
	if _, err := p.task.Delete(ctx); err != nil {
		return err
	}
	if err := p.container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
		return err
	}
	if err := f.cni.Del(ctx, p.name, p.ns.GetPath(), p.pod()); err != nil {
		return err
	}
	return p.ns.Remove()
}
