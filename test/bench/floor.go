package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

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

// bare is the loop without an agent: the containerd and CNI calls that any
// runtime of pods must make, on the containerd that the agent left running.
type bare struct {
	b      *bed
	client *containerd.Client
	image  containerd.Image
	cni    *network.CNI
	pods   []*barePod
}

type barePod struct {
	name  string
	ns    *netns.NetNS
	task  containerd.Task
	owner containerd.Container
}

// floor measures the bare loop with n pods.
func (b *bed) floor(ctx context.Context, n int) (row, error) {
	if err := b.endAgent(syscall.SIGTERM); err != nil {
		return row{}, err
	}
	client, err := containerd.New(b.dir+"/ctd/containerd.sock", containerd.WithDefaultNamespace(agentNamespace), containerd.WithDefaultRuntime("io.containerd.runc.v2"))
	if err != nil {
		return row{}, err
	}
	defer client.Close()
	ctx = namespaces.WithNamespace(ctx, agentNamespace)
	image, err := client.GetImage(ctx, "docker.io/demo/busybox:1")
	if err != nil {
		return row{}, err
	}
	loop := &bare{b: b, client: client, image: image, pods: make([]*barePod, n)}
	loop.cni = network.New(network.Config{
		ConfDir: b.dir + "/cni", BinDirs: []string{b.repo + "/.cache/cni"}, CacheDir: b.dir + "/floor-cni",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	times, total, err := loop.start(ctx)
	if err != nil {
		return row{}, err
	}
	stop, err := loop.stop(ctx)
	s := summarize(times)
	s.Total = total.Seconds()
	return row{Subject: "floor", Pods: n, Start: s, StopSeconds: stop.Seconds()}, err
}

// start starts all pods and returns how long each took.
func (l *bare) start(ctx context.Context) ([]time.Duration, time.Duration, error) {
	times := make([]time.Duration, len(l.pods))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(floorParallel)
	begin := time.Now()
	for i := range l.pods {
		g.Go(func() error {
			own := time.Now()
			p, err := l.startPod(ctx, fmt.Sprintf("floor%03d", i))
			l.pods[i], times[i] = p, time.Since(own)
			return err
		})
	}
	err := g.Wait()
	return times, time.Since(begin), err
}

func (l *bare) startPod(ctx context.Context, name string) (*barePod, error) {
	ns, err := inNamespace(l.b.netns, func() (*netns.NetNS, error) { return netns.NewNetNS(filepath.Join(l.b.dir, "floor-ns")) })
	if err != nil {
		return nil, err
	}
	p := &barePod{name: name, ns: ns}
	if err := l.attach(ctx, p, true); err != nil {
		return p, err
	}
	p.owner, err = l.client.NewContainer(ctx, name, containerd.WithNewSnapshot(name, l.image), containerd.WithNewSpec(
		oci.WithImageConfig(l.image), oci.WithProcessArgs("sleep", "1000000"), oci.WithCgroup("/"+l.b.netns+"/"+name),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: ns.GetPath()}),
	))
	if err != nil {
		return p, err
	}
	if p.task, err = p.owner.NewTask(ctx, cio.NullIO); err != nil {
		return p, err
	}
	return p, p.task.Start(ctx)
}

// attach runs CNI ADD or DEL for a pod.
func (l *bare) attach(ctx context.Context, p *barePod, add bool) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "floor", Name: p.name, UID: types.UID(p.name)}}
	_, err := inNamespace(l.b.netns, func() (struct{}, error) {
		if !add {
			return struct{}{}, l.cni.Del(ctx, p.name, p.ns.GetPath(), pod)
		}
		_, _, err := l.cni.Add(ctx, p.name, p.ns.GetPath(), "", pod)
		return struct{}{}, err
	})
	return err
}

// stop ends all pods and returns how long it takes until the last shim has ended.
func (l *bare) stop(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(floorParallel)
	for _, p := range l.pods {
		g.Go(func() error { return l.stopPod(gctx, p) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	err := until(ctx, "the floor's shims end", func() (bool, error) { return l.b.shims() == 0, nil })
	return time.Since(begin), err
}

func (l *bare) stopPod(ctx context.Context, p *barePod) error {
	exit, err := p.task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := p.task.Kill(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	<-exit
	if _, err := p.task.Delete(ctx); err != nil {
		return err
	}
	if err := p.owner.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
		return err
	}
	if err := l.attach(ctx, p, false); err != nil {
		return err
	}
	return p.ns.Remove()
}
