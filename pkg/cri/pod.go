package cri

import (
	"context"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is what is there of a pod: a copy, which the reader may keep.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	// Sandbox is nil when the pod has none.
	Sandbox *Sandbox
	// Containers holds every attempt that was not removed, the newest of each
	// name before its older ones.
	Containers []Container
}

// Container returns the newest attempt of a container, or nil.
func (p *Pod) Container(name string) *Container {
	i := slices.IndexFunc(p.Containers, func(c Container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &p.Containers[i]
}

// Attempts returns every attempt of a container, newest first.
func (p *Pod) Attempts(name string) []Container {
	var out []Container
	for _, c := range p.Containers {
		if c.Name == name {
			out = append(out, c)
		}
	}
	return out
}

// Sandbox is what the containers of a pod share.
type Sandbox struct {
	ID string `json:"id"`
	// Ready says that the namespaces are pinned and the network is attached.
	Ready     bool      `json:"ready"`
	IPs       []string  `json:"ips,omitempty"` // primary first
	Hostname  string    `json:"hostname"`
	CreatedAt time.Time `json:"createdAt"`
	// Paths of the pinned namespaces; empty means the host's.
	NetNS       string `json:"netNS,omitempty"`
	IPCNS       string `json:"ipcNS,omitempty"`
	UTSNS       string `json:"utsNS,omitempty"`
	UserNS      string `json:"userNS,omitempty"`
	HostNetwork bool   `json:"hostNetwork,omitempty"`
	// HostID is the first of the host's user and group IDs that the pod's user
	// namespace maps to, or 0 when the pod has the host's users.
	HostID uint32 `json:"hostID,omitempty"`
	// PIDInit is the process ID of the init of a shared PID namespace, or 0.
	PIDInit uint32 `json:"pidInit,omitempty"`
	// Error says why the sandbox is not ready, or is empty.
	Error string `json:"error,omitempty"`
}

// State is how far a container got.
type State int

// A container's state is derived from what is known of it:
//
//	Created ──start──► Running ──exit──► Exited
//	   └──────────start failed──────────────┘
//
// Unknown is a container whose task cannot be asked.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

func (s State) String() string {
	switch s {
	case Created:
		return "Created"
	case Running:
		return "Running"
	case Exited:
		return "Exited"
	case Unknown:
		return "Unknown"
	default:
		panic("cri: state without a name")
	}
}

// Container is one attempt to run a container of a pod.
type Container struct {
	ID, Name string
	// Attempt counts the attempts of this name, from 0.
	Attempt int
	// SpecHash is what the caller gave to tell whether the spec has changed.
	SpecHash string
	// Image is the reference that was asked for, ImageRef the digest it was
	// resolved to, ImageID the digest of its configuration.
	Image, ImageRef, ImageID         string
	State                            State
	PID                              uint32
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Signal                           int32
	// Reason is Completed, Error, OOMKilled, StartError or ContainerStatusUnknown.
	Reason, Message string
	OOMKilled       bool
	LogPath         string
	CgroupPath      string // OCI form
	StopSignal      string // by its name in the kernel
	// User is who the process runs as, in the pod's own user namespace if it has one.
	User *corev1.LinuxContainerUser
	// Resources are the requests and limits that it runs with, PodResources those of
	// its pod as a whole, or nil when that has none.
	Resources    corev1.ResourceRequirements
	PodResources *corev1.ResourceRequirements
}

// Image is a local, unpacked image.
type Image struct {
	Name        string   // normalised reference
	ID          string   // digest of the configuration
	RepoDigests []string // name@digest
	RepoTags    []string
	Size        int64 // bytes, compressed
	ChainID     string
	Config      ocispec.ImageConfig
	Pinned      bool
	Archive     string    // of the image directory that it came from, or empty
	CreatedAt   time.Time // when it was last pulled or imported
}

// Resolv is what resolv.conf says.
type Resolv struct {
	Servers, Searches, Options []string
}

// SandboxConfig says what sandbox a pod needs.
type SandboxConfig struct {
	Pod *corev1.Pod
	// Hostname is set in the UTS namespace; Domain makes it fully qualified in hosts.
	Hostname, Domain string
	// CgroupParent is the pod's cgroup below each cgroup mount.
	CgroupParent string
	Resolv       Resolv
}

// Mount is one mount of a container beyond the standard ones.
type Mount struct {
	HostPath, ContainerPath     string
	ReadOnly, RecursiveReadOnly bool
	Propagation                 corev1.MountPropagationMode
}

// ContainerConfig says what container is to be started.
type ContainerConfig struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Attempt   int
	SpecHash  string
	Image     Image
	// Command, Args and Env are expanded; Env is complete but for the image's own.
	Command, Args []string
	Env           []string
	Mounts        []Mount
	// CgroupsPath makes the OCI cgroupsPath from the container's ID.
	CgroupsPath func(id string) string
	Resources   *specs.LinuxResources
	OOMScoreAdj int
	// TerminationLog is the host file behind terminationMessagePath, or empty.
	TerminationLog string
	// Target is the ID of the running container whose processes this one sees, or
	// empty. It means nothing where the pod's containers share their processes anyway.
	Target string
	// SeccompDefault makes RuntimeDefault the profile of a container that names none.
	SeccompDefault bool
}

// StartError says why a container could not be started. Reason is one of the
// kubelet's: CreateContainerError, RunContainerError, StartError, ….
type StartError struct {
	Reason string
	Err    error
}

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// Network attaches sandboxes to the pod network. All methods are idempotent.
type Network interface {
	// Add returns the pod's addresses, primary first, and the result to keep.
	Add(ctx context.Context, sandboxID, netnsPath, cgroupPath string, pod *corev1.Pod) (ips []string, result []byte, err error)
	// Del works with an empty netnsPath, too, to release the addresses.
	Del(ctx context.Context, sandboxID, netnsPath string, pod *corev1.Pod) error
	// Ready says why no pod can be attached, or nil.
	Ready() error
}
