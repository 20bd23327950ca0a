package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// Kinds of the two documents.
const (
	KubeletAPIVersion = "kubelet.config.k8s.io/v1beta1"
	KubeletKind       = "KubeletConfiguration"
	AgentAPIVersion   = "nodeagent.dev/v1alpha1"
	AgentKind         = "NodeAgentConfiguration"
)

// Ways to get a containerd.
const (
	RuntimeAuto     = "auto"
	RuntimeEmbedded = "embedded"
	RuntimeExternal = "external"
)

// Profiles: what the agent is on its machine. They change defaults, nothing else.
const (
	// ProfileStandalone runs the pods of a directory, without a cluster.
	ProfileStandalone = "standalone"
	// ProfileNode is a machine that is a node of a cluster.
	ProfileNode = "node"
	// ProfileGuest is a second node on a machine whose kubelet is in charge.
	ProfileGuest = "guest"
)

// Config is everything a user can set.
type Config struct {
	Kubelet kubeletconfig.KubeletConfiguration
	Agent   NodeAgentConfiguration
	// Unsupported are fields that are set to something else than what happens
	// anyway, are valid, and have no effect yet.
	Unsupported []string

	kubeletLines, agentLines lines // of the fields in the file
}

// NodeAgentConfiguration is what the kubelet has no field for.
type NodeAgentConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// Profile is standalone, node or guest. Empty is node where there is a
	// kubeconfig, else standalone.
	Profile string `json:"profile,omitempty"`
	// Capacity is what this node has of the machine, by resource: cpu, memory and
	// ephemeral-storage, each a quantity or a percentage. What is left out is all
	// that the machine has.
	Capacity map[string]string `json:"capacity,omitempty"`
	// NodeName is this node's name; empty means the hostname, of a guest with
	// -nodeagent behind it.
	NodeName string `json:"nodeName,omitempty"`
	// NodeIPs are this machine's addresses; none means those of its interfaces.
	NodeIPs []string `json:"nodeIPs,omitempty"`
	// Kubeconfig says how to reach the API server; empty means that there is none.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// OfflinePods keeps the pods of the API server over a reboot, for a machine that
	// starts without its link.
	OfflinePods bool `json:"offlinePods,omitempty"`
	// BootstrapKubeconfig is how to get a first certificate; Kubeconfig is written then.
	BootstrapKubeconfig string `json:"bootstrapKubeconfig,omitempty"`
	// CertDir holds the node's certificates; empty means pki in RootDir.
	CertDir string `json:"certDir,omitempty"`
	// NodeLabels are set on the Node when it is registered.
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`
	// Runtime is auto, embedded or external. Auto uses the containerd that answers
	// on ContainerdAddress, and the embedded one when none does.
	Runtime string `json:"runtime,omitempty"`
	// RuntimeDir holds everything of the embedded containerd.
	RuntimeDir string `json:"runtimeDir,omitempty"`
	// RuntimeBinDirs are searched for containerd, its shim and runc, before PATH.
	RuntimeBinDirs []string `json:"runtimeBinDirs,omitempty"`
	// ContainerdAddress is the socket of an external containerd.
	ContainerdAddress   string `json:"containerdAddress,omitempty"`
	ContainerdNamespace string `json:"containerdNamespace,omitempty"`
	Snapshotter         string `json:"snapshotter,omitempty"`
	// RootDir is kept over a reboot, StateDir is not.
	RootDir  string `json:"rootDir,omitempty"`
	StateDir string `json:"stateDir,omitempty"`
	// LogDir holds the pods' logs, ContainerLogDir links to them.
	LogDir          string `json:"logDir,omitempty"`
	ContainerLogDir string `json:"containerLogDir,omitempty"`
	// ImageDir holds image archives that are imported when they appear.
	ImageDir string `json:"imageDir,omitempty"`
	// CNIConfDir and CNIBinDirs are where CNI finds networks and plugins.
	CNIConfDir string   `json:"cniConfDir,omitempty"`
	CNIBinDirs []string `json:"cniBinDirs,omitempty"`
	// PodCIDR is the range of the embedded runtime's bridge network.
	PodCIDR string `json:"podCIDR,omitempty"`
	// HostsDirs hold hosts.toml files for registries.
	HostsDirs []string `json:"hostsDirs,omitempty"`
	// DockerConfig holds registry credentials.
	DockerConfig string `json:"dockerConfig,omitempty"`
	// ImageCredentialProviderConfig is a CredentialProviderConfig, or a directory of
	// them; its programs are in ImageCredentialProviderBinDir.
	ImageCredentialProviderConfig string `json:"imageCredentialProviderConfig,omitempty"`
	ImageCredentialProviderBinDir string `json:"imageCredentialProviderBinDir,omitempty"`
	// CrashLoopBackOff is the delay before a container that failed is started again.
	CrashLoopBackOff CrashLoopBackOff `json:"crashLoopBackOff,omitzero"`
}

// CrashLoopBackOff doubles from Initial to Max. An Initial of 0 is no delay.
type CrashLoopBackOff struct {
	Initial metav1.Duration `json:"initial,omitzero"`
	Max     metav1.Duration `json:"max,omitzero"`
}

// Line is where the file has a field; 0 means that it is not there.
func (c Config) Line(field string) int {
	if line := c.agentLines.of(field); line > 0 {
		return line
	}
	return c.kubeletLines.of(field)
}

// Default is what holds when nothing is set.
func Default() Config { return DefaultOf("") }

// DefaultOf is what holds when nothing but the profile is set.
func DefaultOf(profile string) Config {
	c := Config{Kubelet: defaultKubelet(), Agent: defaultAgent()}
	c.Agent.Profile = profile
	if profile == ProfileGuest {
		beGuest(&c)
	}
	return c
}

// defaultKubelet are the kubelet's own defaults of what this agent has a use for,
// except where a comment gives the reason for another value.
func defaultKubelet() kubeletconfig.KubeletConfiguration {
	k := kubeletconfig.KubeletConfiguration{
		TypeMeta:           metav1.TypeMeta{APIVersion: KubeletAPIVersion, Kind: KubeletKind},
		StaticPodPath:      "/etc/kubernetes/manifests", // kubelet: none; without an API server nothing would ever run
		FileCheckFrequency: duration(20 * time.Second),

		CgroupDriver:           "", // kubelet: cgroupfs, unless the runtime knows better; here: systemd where it is the init
		CgroupsPerQOS:          new(true),
		EnforceNodeAllocatable: []string{"pods"},
		EvictionHard:           defaultEvictionHard(),
		FailCgroupV1:           new(false), // kubelet: true; a machine that has only v1 is better served than refused
		FailSwapOn:             new(false), // kubelet: true; most installers set up swap, and pods use none unless told to

		MaxPods:                 110,
		PodPidsLimit:            new(int64(-1)),
		CPUCFSQuota:             new(true),
		CPUCFSQuotaPeriod:       new(duration(100 * time.Millisecond)),
		MemoryReservationPolicy: kubeletconfig.NoneMemoryReservationPolicy,
		OOMScoreAdj:             new(int32(-999)),
		SeccompDefault:          new(false),
		CPUManagerPolicy:        "none",
		MemoryManagerPolicy:     "None",
		TopologyManagerPolicy:   "none",
		TopologyManagerScope:    "container",

		ContainerLogMaxSize:  "10Mi",
		ContainerLogMaxFiles: new(int32(5)),
		ResolverConfig:       new("/etc/resolv.conf"),

		SerializeImagePulls:         new(false), // kubelet: true; one slow registry must not hold up all others
		ImageGCHighThresholdPercent: new(int32(85)),
		ImageGCLowThresholdPercent:  new(int32(80)),
		ImageMinimumGCAge:           duration(2 * time.Minute),

		EvictionPressureTransitionPeriod: duration(5 * time.Minute),

		RegisterNode:              new(true),
		NodeStatusUpdateFrequency: duration(10 * time.Second),
		NodeStatusReportFrequency: duration(5 * time.Minute),
		NodeStatusMaxImages:       new(int32(50)),
		NodeLeaseDurationSeconds:  40,
	}
	defaultAPI(&k)
	return k
}

func duration(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

func defaultEvictionHard() map[string]string {
	return map[string]string{
		"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%",
		"imagefs.available": "15%", "imagefs.inodesFree": "5%",
	}
}

func defaultAgent() NodeAgentConfiguration {
	return NodeAgentConfiguration{
		TypeMeta:            metav1.TypeMeta{APIVersion: AgentAPIVersion, Kind: AgentKind},
		Runtime:             RuntimeAuto,
		RuntimeDir:          "/var/lib/nodeagent/containerd",
		RuntimeBinDirs:      []string{"/usr/local/lib/nodeagent/bin", "/usr/lib/nodeagent/bin"}, // of the archive, and of the Debian package
		ContainerdAddress:   "/run/containerd/containerd.sock",
		ContainerdNamespace: "nodeagent",
		Snapshotter:         "overlayfs",
		RootDir:             "/var/lib/nodeagent",
		StateDir:            "/run/nodeagent",
		LogDir:              "/var/log/pods",
		ContainerLogDir:     "/var/log/containers",
		ImageDir:            "/var/lib/nodeagent/images",
		CNIConfDir:          "/etc/cni/net.d",
		CNIBinDirs:          []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/local/lib/nodeagent/cni", "/usr/lib/nodeagent/cni"}, // the machine's own first
		PodCIDR:             "10.88.0.0/16",
		HostsDirs:           []string{"/etc/containerd/certs.d", "/etc/docker/certs.d"},
		DockerConfig:        "/root/.docker/config.json",
		CrashLoopBackOff:    CrashLoopBackOff{Initial: duration(10 * time.Second), Max: duration(300 * time.Second)},
	}
}
