package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/node"
	"github.com/nodeagent/nodeagent/pkg/podsync"
)

const (
	// kubernetesVersion is the release whose kubelet this agent stands in for.
	kubernetesVersion = "v1.37.2"
	// runtimePatience is how long containerd may be silent, for it to be restarted
	// or upgraded, before the node is not ready.
	runtimePatience = 30 * time.Second
	// imagesEvery is how often images are counted.
	imagesEvery = time.Minute
)

// machine is what the facts about this node are gathered from. Only the node's
// own loop uses it.
type machine struct {
	agent    *agent
	info     corev1.NodeSystemInfo
	strain   node.Strain
	answered time.Time // when containerd last has
	ips      []string
	imageDir string // of the snapshotter, once containerd has told it

	counted  time.Time // when images last were
	names    map[string]string
	imageSet []corev1.ContainerImage
}

// facts looks at the machine. While containerd is away what it said before holds.
func (m *machine) facts(ctx context.Context) (*node.Facts, error) {
	a, now := m.agent, time.Now()
	f := &node.Facts{
		Hostname: a.cfg.Agent.NodeName, IPs: a.nodeIPs(), Capacity: a.tree.Capacity(), Allocatable: a.tree.Allocatable(),
		Handlers: handlers(), Features: &corev1.NodeFeatures{SupplementalGroupsPolicy: new(true)},
		DeclaredFeatures: podsync.DeclaredFeatures(), Port: a.cfg.Kubelet.Port,
	}
	if a.serving != nil && !slices.Equal(f.IPs, m.ips) {
		m.ips = f.IPs
		a.serving.Kick()
	}
	m.askRuntime(ctx, now)
	if silent := now.Sub(m.answered); silent >= runtimePatience {
		f.Causes = append(f.Causes, "container runtime is down: containerd does not answer")
	}
	if a.shutdown != nil && a.shutdown.Active() {
		f.Causes = append(f.Causes, node.ShutdownCause)
	}
	if err := a.network.Ready(); err != nil {
		f.Causes = append(f.Causes, fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: %v", err))
	}
	var err error
	f.Pressures, err = m.pressures(now)
	f.Info, f.Images = m.info, m.imageSet
	return f, err
}

// askRuntime asks containerd for its version, which is the same as whether it is
// there, and now and then for its images.
func (m *machine) askRuntime(ctx context.Context, now time.Time) {
	a := m.agent
	v, err := a.runtime.Client().Version(ctx)
	if err != nil {
		a.log.Debug("containerd does not answer", "err", err)
		return
	}
	m.answered = now
	m.info.ContainerRuntimeVersion = "containerd://" + strings.TrimPrefix(v.Version, "v")
	m.info.KubeletVersion = node.Version(kubernetesVersion, version)
	m.info.OperatingSystem, m.info.Architecture = runtime.GOOS, runtime.GOARCH
	if now.Sub(m.counted) < imagesEvery {
		return
	}
	if err := m.count(ctx); err != nil {
		a.log.Debug("images not counted", "err", err)
		return
	}
	m.counted = now
}

// count lists the images if any has come or gone.
func (m *machine) count(ctx context.Context) error {
	a := m.agent
	dir, err := a.images.Dir(ctx)
	if err != nil {
		return err
	}
	m.imageDir = dir
	names, err := a.images.Names(ctx)
	if err != nil || m.names != nil && maps.Equal(names, m.names) {
		return err
	}
	list, err := a.imagesByID(ctx)
	if err != nil {
		return err
	}
	m.imageSet = nil
	for i := range list {
		slices.Sort(list[i].Names)
		m.imageSet = append(m.imageSet, corev1.ContainerImage{Names: list[i].Names, SizeBytes: list[i].Size})
	}
	m.imageSet = node.TopImages(m.imageSet, int(ptr.Deref(a.cfg.Kubelet.NodeStatusMaxImages, 50)))
	m.names = names
	return nil
}

func (m *machine) pressures(now time.Time) (map[corev1.NodeConditionType]bool, error) {
	k := m.agent.cfg.Kubelet
	dirs := map[string]string{"nodefs": m.agent.cfg.Agent.RootDir}
	if m.imageDir != "" {
		dirs["imagefs"] = m.imageDir
	}
	signals, err := node.ReadSignals("/proc", dirs)
	if err != nil {
		return nil, err
	}
	below, err := node.Below(k.EvictionHard, signals)
	if err != nil {
		return nil, err
	}
	return m.strain.Observe(below, now, k.EvictionPressureTransitionPeriod.Duration), nil
}

// handlers are the ways to run a container: one, and what this kernel lets it do.
func handlers() []corev1.NodeRuntimeHandler {
	attributes := !errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS) // Linux 5.12
	_, err := os.Stat("/proc/self/ns/user")
	return []corev1.NodeRuntimeHandler{{Features: &corev1.NodeRuntimeHandlerFeatures{
		RecursiveReadOnlyMounts: new(attributes), UserNamespaces: new(attributes && err == nil),
	}}}
}
