package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/identity"
	"github.com/nodeagent/nodeagent/pkg/network"
	"github.com/nodeagent/nodeagent/pkg/node"
	"github.com/nodeagent/nodeagent/pkg/object"
	"github.com/nodeagent/nodeagent/pkg/podsource"
	"github.com/nodeagent/nodeagent/pkg/podstatus"
	"github.com/nodeagent/nodeagent/pkg/podsync"
	"github.com/nodeagent/nodeagent/pkg/probe"
	"github.com/nodeagent/nodeagent/pkg/qos"
	"github.com/nodeagent/nodeagent/pkg/volume"
)

// keptManifests, below RootDir, holds manifests as they were when last good.
const keptManifests = "manifests"

// agent is everything that runs, built and wired.
type agent struct {
	cfg      config.Config
	log      *slog.Logger
	cluster  *cluster              // nil when standalone
	member   *node.Node            // nil when standalone
	shutdown *node.Shutdown        // nil where pods get no time for it
	serving  *identity.Certificate // nil unless the cluster signs it
	tree     *qos.Tree
	embedded *cri.Embedded // nil with an external containerd
	network  *network.CNI
	runtime  *cri.Runtime
	images   *cri.Images
	probes   *probe.Manager
	desired  *podsync.Desired
	pool     *podsync.Pool
	// wake is the pool's, once there is one: containers that are taken over may
	// exit before.
	wake   atomic.Pointer[func(types.UID)]
	source *podsource.Dir
	board  *podstatus.Board
	api    *apiPods // nil when standalone
	// manifests are the pods, config maps and secrets of the manifest directory.
	manifests atomic.Pointer[manifests]
	objects   *object.Store // nil when standalone
}

// build makes all parts, lowest first. Nothing runs yet but what outlives the
// agent anyway.
func build(ctx context.Context, cfg config.Config, log *slog.Logger) (*agent, error) {
	a := &agent{cfg: cfg, log: log, board: podstatus.NewBoard()}
	a.manifests.Store(&manifests{})
	var err error
	if a.cluster, err = joinCluster(cfg, log); err != nil {
		return nil, err
	}
	a.desired = podsync.NewDesired(a.podSources()...)
	a.objects = a.newObjects()
	if a.tree, err = newTree(ctx, cfg, log); err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	a.shutdown = a.newShutdown()
	if a.member, err = a.newNode(); err != nil {
		return nil, err
	}
	if err := a.tree.EnsureRoot(ctx); err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	if err := a.connect(ctx); err != nil {
		return nil, err
	}
	// Before the first pod asks for one: it would try a registry.
	if err := a.images.Scan(ctx); err != nil {
		return nil, err
	}
	a.probes = probe.New(probe.Deps{
		Exec: func(ctx context.Context, id string, cmd []string, timeout time.Duration) (int, []byte, error) {
			return a.runtime.ExecSync(ctx, id, cmd, timeout)
		},
		PodIP:    a.podIP,
		OnChange: func(uid types.UID) { a.pool.Wake(uid) },
		Event: func(pod *corev1.Pod, container, reason, message string) {
			a.event(pod, container, corev1.EventTypeWarning, reason, message)
		},
	})
	a.pool, err = a.newPool()
	if err != nil {
		return nil, err
	}
	if a.api, err = a.newAPIPods(); err != nil {
		return nil, err
	}
	wake := a.pool.Wake
	a.wake.Store(&wake)
	a.source = &podsource.Dir{
		Path: cfg.Kubelet.StaticPodPath, NodeName: cfg.Agent.NodeName, RescanEvery: cfg.Kubelet.FileCheckFrequency.Duration,
		KeepDir: filepath.Join(cfg.Agent.RootDir, keptManifests), Emit: a.accept, Log: log,
	}
	return a, nil
}

// newTree reads the cgroup part of the configuration.
func newTree(ctx context.Context, cfg config.Config, log *slog.Logger) (*qos.Tree, error) {
	k := cfg.Kubelet
	reserved := func(m map[string]string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for r, v := range m {
			out[corev1.ResourceName(r)] = resource.MustParse(v) // Validate has parsed it
		}
		return out
	}
	memoryQoS, gate := k.FeatureGates["MemoryQoS"]
	percent, _ := strconv.ParseInt(strings.TrimSuffix(k.QOSReserved["memory"], "%"), 10, 64) // Validate has parsed it
	return qos.New(ctx, qos.Config{
		Driver: k.CgroupDriver, CgroupFSRoot: "/sys/fs/cgroup", ProcRoot: "/proc", SysRoot: "/sys", RunRoot: "/run", CgroupRoot: k.CgroupRoot,
		OwnRoot: cfg.Agent.Profile == config.ProfileGuest,
		Node: qos.NodeSettings{
			Capacity:       capacity(cfg),
			SystemReserved: reserved(k.SystemReserved), KubeReserved: reserved(k.KubeReserved), ReservedCPUs: k.ReservedSystemCPUs,
			SystemReservedCgroup: k.SystemReservedCgroup, KubeReservedCgroup: k.KubeReservedCgroup, EvictionHard: k.EvictionHard,
			EnforceNodeAllocatable: k.EnforceNodeAllocatable, MaxPods: int64(k.MaxPods), PodsPerCore: int64(k.PodsPerCore), RootDir: cfg.Agent.RootDir,
		},
		PodPidsLimit: ptr.Deref(k.PodPidsLimit, -1), CPUCFSQuota: ptr.Deref(k.CPUCFSQuota, true), CPUCFSQuotaPeriod: k.CPUCFSQuotaPeriod.Duration,
		MemoryThrottlingFactor: k.MemoryThrottlingFactor, MemoryReservationPolicy: string(k.MemoryReservationPolicy),
		NoMemoryQoS: gate && !memoryQoS, QOSReservedMemory: percent,
		SwapBehavior: k.MemorySwap.SwapBehavior, SingleProcessOOMKill: k.SingleProcessOOMKill, OOMScoreAdj: new(int(ptr.Deref(k.OOMScoreAdj, -999))), Log: log,
	})
}

// connect reaches containerd, which it starts where that is wanted.
func (a *agent) connect(ctx context.Context) error {
	c := a.cfg.Agent
	address := c.ContainerdAddress
	if c.Runtime == config.RuntimeEmbedded || c.Runtime == config.RuntimeAuto && answers(address) != nil {
		a.embedded = &cri.Embedded{Dir: c.RuntimeDir, BinDirs: c.RuntimeBinDirs, Log: a.log}
		if err := a.embedded.Ensure(ctx); err != nil {
			return err
		}
		address = a.embedded.Address()
		if err := network.EnsureBridge(ctx, bridgeFile(a.cfg), bridge(a.cfg)); err != nil {
			return err
		}
	}
	a.network = network.New(network.Config{
		ConfDir: c.CNIConfDir, BinDirs: c.CNIBinDirs, CacheDir: filepath.Join(c.StateDir, "cni"), OnHost: hostView(a.cfg), Log: a.log,
	})
	runc, err := a.runcBinary()
	if err != nil {
		return err
	}
	self, holdStart, err := a.lasting()
	if err != nil {
		return err
	}
	maxSize := resource.MustParse(a.cfg.Kubelet.ContainerLogMaxSize) // Validate has parsed it
	a.runtime, err = cri.New(ctx, cri.Config{
		Address: address, Namespace: c.ContainerdNamespace, Snapshotter: c.Snapshotter, StateDir: c.StateDir, RootDir: c.RootDir,
		LogDir: c.LogDir, ContainerLogDir: c.ContainerLogDir, RuncBinary: runc, SystemdCgroup: a.tree.SystemdDriver(), CgroupV2: a.tree.Version() == 2,
		Network: a.network, Wake: func(uid types.UID) {
			if wake := a.wake.Load(); wake != nil {
				(*wake)(uid)
			}
		},
		LogMaxSize: maxSize.Value(), LogMaxFiles: int(ptr.Deref(a.cfg.Kubelet.ContainerLogMaxFiles, 5)),
		HoldCommand: []string{self, holdLogsCommand}, HoldStart: holdStart, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.images = cri.NewImages(a.runtime.Client(), cri.ImagesConfig{
		Snapshotter: c.Snapshotter, HostsDirs: c.HostsDirs, DockerConfig: c.DockerConfig, ImageDir: c.ImageDir,
		MaxParallelPulls: parallelPulls(a.cfg),
		Arrived:          func() { a.pool.WakeAll() }, Log: a.log,
	})
	return nil
}

// bridge is the network that comes with the embedded runtime.
func bridge(cfg config.Config) network.Bridge {
	return network.Bridge{PodCIDR: cfg.Agent.PodCIDR, BinDirs: cfg.Agent.CNIBinDirs, DataDir: filepath.Join(cfg.Agent.StateDir, "addresses")}
}

func bridgeFile(cfg config.Config) string {
	return filepath.Join(cfg.Agent.CNIConfDir, "10-nodeagent.conflist")
}

func (a *agent) volumes() *volume.Set {
	return &volume.Set{
		RootDir: a.cfg.Agent.RootDir, ConfigMap: a.configMap, Secret: a.secret, Server: a.volumeServer(), NodeAllocatable: a.tree.Allocatable(), OnHost: hostView(a.cfg), Log: a.log,
	}
}

// limits evicts pods whose volumes outgrow their limit.
func (a *agent) limits() *volume.Limits {
	return &volume.Limits{Set: a.volumes(), Pods: a.desired.Pods, Evict: func(pod *corev1.Pod, message string) {
		a.event(pod, "", corev1.EventTypeWarning, "Evicted", message)
		a.desired.Evict(pod.UID, "Evicted", message)
	}}
}

func (a *agent) newPool() (*podsync.Pool, error) {
	volumes := a.volumes()
	host, err := hostResolv(ptr.Deref(a.cfg.Kubelet.ResolverConfig, ""))
	if err != nil {
		return nil, err
	}
	alive, aliveEvery, err := watchdog(a.log)
	if err != nil {
		return nil, err
	}
	providers, err := a.credentialProviders()
	if err != nil {
		return nil, err
	}
	return podsync.NewPool(podsync.Config{
		Alive: alive, AliveEvery: aliveEvery,
		Desired: a.desired, Runtime: a.runtime, Images: a.images, Cgroups: a.tree, Volumes: volumes, Probes: a.probes,
		Status: statusSink{a}, Event: a.event,
		Lookups: podsync.Lookups{
			ConfigMap: a.configMap, Secret: a.secret, Services: a.services, Field: volume.FieldValue, Resource: volumes.ResourceValue,
			Credentials: cri.Credentials, Providers: providers,
		},
		Room: podsync.Room{Closed: a.closed, Allocatable: a.tree.Allocatable(), UnsafeSysctls: a.cfg.Kubelet.AllowedUnsafeSysctls},
		Node: a.knownNode, AskNode: a.askNode,
		NodeIPs:        a.nodeIPs(),
		DNS:            podsync.DNS{ClusterServers: a.cfg.Kubelet.ClusterDNS, ClusterDomain: a.cfg.Kubelet.ClusterDomain, Host: host},
		BackOff:        podsync.BackOff{Initial: a.cfg.Agent.CrashLoopBackOff.Initial.Duration, Max: a.cfg.Agent.CrashLoopBackOff.Max.Duration},
		SeccompDefault: ptr.Deref(a.cfg.Kubelet.SeccompDefault, false),
		RootDir:        a.cfg.Agent.RootDir, StateDir: a.cfg.Agent.StateDir, Log: a.log,
	}), nil
}

// parts is everything that runs as long as the agent does.
func (a *agent) parts() []func(context.Context) error {
	parts := []func(context.Context) error{
		a.tree.Run, a.runPods, a.images.Run, a.collectImages, a.network.Run, a.probes.Run, a.source.Run, a.limits().Run, a.settle,
	}
	if a.objects != nil {
		parts = append(parts, a.objects.Run)
	}
	parts = append(parts, a.memberParts()...)
	if a.shutdown != nil {
		parts = append(parts, a.shutdown.Run)
	}
	if a.embedded != nil {
		parts = append(parts, a.embedded.Run)
	}
	if a.api != nil {
		parts = append(parts, a.whenClaimed(a.api.Run))
	}
	return append(parts, a.apiParts()...)
}

// runPods runs the reconciler on the runtime. The runtime ends last: a start that
// is under way is finished, not broken off.
func (a *agent) runPods(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	runtime := make(chan error, 1)
	go func() { runtime <- a.runtime.Run(life) }()
	err := a.pool.Run(ctx)
	end()
	return errors.Join(err, <-runtime)
}

func (a *agent) close() { a.tree.Close() }

// accept takes the full list of the manifest directory.
func (a *agent) accept(pods []*corev1.Pod, objects podsource.Objects) {
	a.manifests.Store(newManifests(pods, objects))
	a.desired.Set(podsource.Source, pods)
	if a.api != nil {
		a.api.mirrors.SetStatic(pods)
	}
	a.pool.WakeAll() // objects that pods wait for may have arrived
}

func (a *agent) event(pod *corev1.Pod, container, kind, reason, message string) {
	now := time.Now()
	a.board.Event(pod, container, kind, reason, message, now)
	if a.api != nil {
		a.api.events.Event(pod, container, kind, reason, message, now)
	}
}

func (a *agent) podIP(uid types.UID) string {
	p, ok := a.runtime.Pod(uid)
	switch {
	case !ok || p.Sandbox == nil:
		return ""
	case p.Sandbox.HostNetwork:
		if ips := a.nodeIPs(); len(ips) > 0 {
			return ips[0]
		}
		return "127.0.0.1"
	case len(p.Sandbox.IPs) > 0:
		return p.Sandbox.IPs[0]
	default:
		return ""
	}
}

// hostResolv reads the node's resolv.conf; a machine may have none.
func hostResolv(path string) (cri.Resolv, error) {
	if path == "" {
		return cri.Resolv{}, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cri.Resolv{}, nil
	}
	if err != nil {
		return cri.Resolv{}, err
	}
	defer f.Close()
	return podsync.ParseResolv(f)
}

// nodeIPs are the configured addresses, else those of the machine that others can
// reach, IPv4 first.
func (a *agent) nodeIPs() []string {
	if len(a.cfg.Agent.NodeIPs) > 0 {
		return a.cfg.Agent.NodeIPs
	}
	return nodeIPs(a.cfg.Agent.PodCIDR)
}
