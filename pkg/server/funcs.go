package server

import (
	"context"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Funcs is everything the routes can ask of the agent. All of them must be safe
// for concurrent use and honour their context. A nil func answers 501.
type Funcs struct {
	// Healthy says what keeps the agent from its work; nil: nothing ever does.
	Healthy func(ctx context.Context) error
	// Pods lists the pods of this node with their current status.
	Pods func(ctx context.Context) (*corev1.PodList, error)
	// WatchPods sends every pod once, then each change, until ctx ends or send fails.
	WatchPods func(ctx context.Context, send func(PodEvent) error) error
	// Events lists what happened to a pod, oldest first.
	Events func(ctx context.Context, namespace, pod string) (*corev1.EventList, error)
	// Find says whether the target of a session or log is there, and which pod it
	// is; nil: that is left to the funcs below.
	Find func(ctx context.Context, t Target) (types.UID, error)
	// Logs writes a container's log; a nil writer leaves its stream out.
	Logs func(ctx context.Context, q LogQuery, stdout, stderr io.Writer) error
	// Exec runs a command in a container; a non-zero exit is a
	// k8s.io/utils/exec.CodeExitError.
	Exec func(ctx context.Context, s Session) error
	// Attach connects to a container's main process.
	Attach func(ctx context.Context, s Session) error
	// PortForward connects a stream with a port of a pod until both sides have ended.
	PortForward func(ctx context.Context, t Target, port int32, stream io.ReadWriteCloser) error
	// Restart ends one container (or all, when container is empty) in place.
	Restart func(ctx context.Context, namespace, pod, container string) error
	// Summary is what the node and its pods use, or only their CPU and memory.
	Summary func(ctx context.Context, onlyCPUAndMemory bool) (any, error)
	// RunningPods, Config, Cgroups, Inspect, Images, Problems and Node answer with a
	// JSON document.
	RunningPods func(ctx context.Context) (any, error)
	Config      func(ctx context.Context) (any, error)
	Cgroups     func(ctx context.Context) (any, error)
	Inspect     func(ctx context.Context, namespace, pod string) (any, error)
	Images      func(ctx context.Context) (any, error)
	Problems    func(ctx context.Context) (any, error)
	Node        func(ctx context.Context) (any, error)
	// Metrics of the agent, of resources, of probes and of containers, for Prometheus.
	Metrics, ResourceMetrics, ProbeMetrics, ContainerMetrics http.Handler
}

// Target is a pod or one of its containers.
type Target struct {
	Namespace, Pod string
	UID            types.UID // empty: whichever pod has the name
	Container      string
	// Running says that a container that does not run is of no use.
	Running bool
}

// PodEvent is one line of a pod watch.
type PodEvent struct {
	// Type is ADDED, MODIFIED or DELETED, as in a Kubernetes watch.
	Type   string     `json:"type"`
	Object corev1.Pod `json:"object"`
}

// LogQuery says which log lines are wanted.
type LogQuery struct {
	Namespace, Pod, Container    string
	Follow, Previous, Timestamps bool
	Tail                         int64 // lines; negative means all
	Since                        time.Time
	LimitBytes                   int64 // 0 means no limit
	// NoStdout and NoStderr leave a stream out.
	NoStdout, NoStderr bool
}
