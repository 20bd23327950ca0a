package podsync

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// Observer knows what runs. Its answers come from memory: they are asked for in
// every pass.
type Observer interface {
	Pods() []cri.Pod
	Pod(uid types.UID) (cri.Pod, bool)
}

// Sandboxes gives pods their namespaces and network. All verbs are idempotent.
type Sandboxes interface {
	// StartSandbox replaces a sandbox that is there and not ready.
	StartSandbox(ctx context.Context, cfg cri.SandboxConfig) (cri.Sandbox, error)
	StopSandbox(ctx context.Context, uid types.UID) error
	// RemoveSandbox forgets the pod: containers, records and logs.
	RemoveSandbox(ctx context.Context, uid types.UID) error
}

// Containers runs containers in a sandbox. All verbs are idempotent.
type Containers interface {
	// StartContainer fails with a *cri.StartError where it knows the kubelet's reason.
	StartContainer(ctx context.Context, cfg cri.ContainerConfig) (cri.Container, error)
	// StopContainer returns when the container has exited.
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	// ResizeContainer fails with cri.ErrNotRunning when there is nothing to resize.
	ResizeContainer(ctx context.Context, id string, to cri.Resize) error
	RemoveContainer(ctx context.Context, id string, keepLog bool) error
}

// Execer runs commands in containers. A timeout of 0 is none.
type Execer interface {
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (code int, output []byte, err error)
}

// Runtime is a container runtime.
type Runtime interface {
	Observer
	Sandboxes
	Containers
	Execer
}

// Images makes images present.
type Images interface {
	EnsureImage(ctx context.Context, req cri.ImageRequest) (cri.Image, error)
}

// Cgroups keeps the pods' cgroups. All verbs are idempotent.
type Cgroups interface {
	PodCgroups
	CgroupSizes
}

// PodCgroups makes cgroups and takes them away.
type PodCgroups interface {
	EnsurePod(ctx context.Context, pod *corev1.Pod) (qos.PodCgroup, error)
	RemovePod(ctx context.Context, uid types.UID) error
	// Pods lists pods that have a cgroup, known or not.
	Pods(ctx context.Context) ([]types.UID, error)
	Container(pod *corev1.Pod, c *corev1.Container) qos.ContainerResources
}

// CgroupSizes changes what cgroups are set to.
type CgroupSizes interface {
	ResizeTiers(ctx context.Context, pods []*corev1.Pod) error
	// ResizePod calls containers when it is their turn.
	ResizePod(ctx context.Context, from, to *corev1.Pod, containers func() error) error
	MemoryUsed(cgroup string) (uint64, error)
}

// Volumes keeps the pods' volumes. All verbs are idempotent.
type Volumes interface {
	Setup(ctx context.Context, pod *corev1.Pod) (map[string]Mounted, error)
	// Update refreshes contents that may have changed.
	Update(ctx context.Context, pod *corev1.Pod) (changed bool, err error)
	Teardown(ctx context.Context, uid types.UID) error
	// SubPath makes a path inside a volume safe to mount.
	SubPath(ctx context.Context, pod *corev1.Pod, container string, mountIndex int, volumeHostPath, subPath string) (string, error)
}

// Mounted is a volume on this node.
type Mounted = struct {
	HostPath string
	ReadOnly bool
}

// Probes runs the probes of running containers and knows what they found.
type Probes interface {
	Prober
	ProbeResults
}

// Prober runs probes.
type Prober interface {
	// Sync probes a running container; known ones are left as they are.
	Sync(pod *corev1.Pod, container, id string, startedAt time.Time)
	Remove(id string)
	RemovePod(uid types.UID)
	// Ending ends the probes that could have a container of the pod restarted.
	Ending(uid types.UID)
	// Seed tells what was known of a container before the agent was restarted.
	Seed(uid types.UID, id string, started, ready bool)
}

// ProbeResults says what probes found. Unknown is not a failure.
type ProbeResults interface {
	Started(id string) bool
	Ready(id string) bool
	// Failed is "liveness" or "startup" once that probe has given up, else empty.
	Failed(id string) string
}

// StatusSink is told the newest status of each pod. The pod must not be changed.
type StatusSink interface {
	Set(pod *corev1.Pod)
	// Release says that a pod which is being deleted runs nothing and holds nothing
	// on this node any more; its last status has been set.
	Release(pod *corev1.Pod)
	Remove(uid types.UID)
}
