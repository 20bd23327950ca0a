package podsync

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Step is one thing to do for a pod. The set is closed: these structs and no
// others. Every step is idempotent, and two steps of one slot never run at once.
type Step interface {
	// slot names what the step works on.
	slot() string
	// verb names what it does there, for logs and to hold back what keeps failing.
	verb() string
}

type (
	// EnsureCgroup makes the pod's cgroup.
	EnsureCgroup struct{}
	// ResizePod sets the cgroups to what the pod was granted.
	ResizePod struct{}
	// SetupVolumes makes and mounts the pod's volumes.
	SetupVolumes struct{}
	// UpdateVolumes brings the contents of mounted volumes up to date.
	UpdateVolumes struct{}
	// PullImage makes sure of the image for one attempt of a container.
	PullImage struct {
		Container string
		Attempt   int
	}
	// StartSandbox gives the pod its namespaces and its network.
	StartSandbox struct{}
	// StartContainer runs the next attempt of a container. Series is the attempt
	// from which its crashes are counted.
	StartContainer struct {
		Container       string
		Attempt, Series int
		Origin          string
	}
	// PostStart runs the hook of an attempt that has been started.
	PostStart struct{ Container, ID string }
	// PreStop runs the hook of an attempt that is to stop when it is its turn.
	PreStop struct {
		Container, ID string
		Grace         time.Duration
	}
	// StopContainer ends a running attempt: preStop hook, stop signal, kill.
	StopContainer struct {
		Container, ID string
		Grace         time.Duration
		Why           string
		Resize        bool // it is restarted for its new resources
	}
	// RemoveContainer forgets a dead attempt, and its log with it.
	RemoveContainer struct{ ID string }
	// StopSandbox takes the pod's network and namespaces away.
	StopSandbox struct{}
	// RemoveVolumes unmounts and deletes the pod's volumes.
	RemoveVolumes struct{}
	// RemoveCgroup kills what is left in the pod's cgroup and removes it.
	RemoveCgroup struct{}
	// RemoveSandbox forgets the pod in the runtime, logs included.
	RemoveSandbox struct{}
	// Forget removes the agent's own record and directory of the pod.
	Forget struct{}
)

func (EnsureCgroup) slot() string      { return "cgroup" }
func (EnsureCgroup) verb() string      { return "ensure" }
func (ResizePod) slot() string         { return "cgroup" }
func (ResizePod) verb() string         { return "resize" }
func (SetupVolumes) slot() string      { return "volumes" }
func (SetupVolumes) verb() string      { return "set up" }
func (UpdateVolumes) slot() string     { return "volumes" }
func (UpdateVolumes) verb() string     { return "update" }
func (s PullImage) slot() string       { return "image of " + s.Container }
func (PullImage) verb() string         { return "pull" }
func (StartSandbox) slot() string      { return "sandbox" }
func (StartSandbox) verb() string      { return "start" }
func (s StartContainer) slot() string  { return containerSlot(s.Container) }
func (StartContainer) verb() string    { return "start" }
func (s PostStart) slot() string       { return containerSlot(s.Container) }
func (PostStart) verb() string         { return "postStart" }
func (s PreStop) slot() string         { return containerSlot(s.Container) }
func (PreStop) verb() string           { return "preStop" }
func (s StopContainer) slot() string   { return containerSlot(s.Container) }
func (StopContainer) verb() string     { return "stop" }
func (s RemoveContainer) slot() string { return "dead container " + s.ID }
func (RemoveContainer) verb() string   { return "remove" }
func (StopSandbox) slot() string       { return "sandbox" }
func (StopSandbox) verb() string       { return "stop" }
func (RemoveVolumes) slot() string     { return "volumes" }
func (RemoveVolumes) verb() string     { return "remove" }
func (RemoveCgroup) slot() string      { return "cgroup" }
func (RemoveCgroup) verb() string      { return "remove" }
func (RemoveSandbox) slot() string     { return "sandbox" }
func (RemoveSandbox) verb() string     { return "remove" }
func (Forget) slot() string            { return "record" }
func (Forget) verb() string            { return "remove" }

func containerSlot(name string) string { return "container " + name }

// holdKey is what failures of a step are counted under.
func holdKey(s Step) string { return s.verb() + " " + s.slot() }

// origin says for which life of its pod an attempt was made. It travels as the
// container's spec hash, so it survives the agent without a clock being trusted.
type origin struct {
	Sandbox string // id
	Round   int    // how often all containers were restarted together
	Hash    string // of what cannot change without a restart
}

func (o origin) String() string {
	return fmt.Sprintf("%s.%d.%s", o.Hash, o.Round, o.Sandbox)
}

// parseOrigin reads what String wrote; anything else is an unknown origin.
func parseOrigin(s string) origin {
	hash, rest, _ := strings.Cut(s, ".")
	number, sandbox, _ := strings.Cut(rest, ".")
	round, err := strconv.Atoi(number)
	if err != nil {
		return origin{}
	}
	return origin{Sandbox: sandbox, Round: round, Hash: hash}
}
