package critest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// Verbs is what the suite asks of a runtime.
type Verbs interface {
	Pods() []cri.Pod
	Pod(uid types.UID) (cri.Pod, bool)
	StartSandbox(ctx context.Context, cfg cri.SandboxConfig) (cri.Sandbox, error)
	StopSandbox(ctx context.Context, uid types.UID) error
	RemoveSandbox(ctx context.Context, uid types.UID) error
	StartContainer(ctx context.Context, cfg cri.ContainerConfig) (cri.Container, error)
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	ResizeContainer(ctx context.Context, id string, to cri.Resize) error
	RemoveContainer(ctx context.Context, id string, keepLog bool) error
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (code int, output []byte, err error)
}

// Machine is where the suite runs: a runtime without pods that tells wake of
// exits, and an image with true, false and sleep. Cgroup is where it may make
// cgroups, below each cgroup mount.
type Machine struct {
	Runtime Verbs
	Image   cri.Image
	Cgroup  string
}

// Test runs the contract on the machine that boot makes for each case.
func Test(t *testing.T, boot func(t *testing.T, wake func(types.UID)) Machine) {
	for name, c := range map[string]func(*bench){
		"StartSandboxIsIdempotent":     (*bench).startSandboxIsIdempotent,
		"NoContainerWithoutSandbox":    (*bench).noContainerWithoutSandbox,
		"NewestAttemptFirst":           (*bench).newestAttemptFirst,
		"WhoRunsIsTold":                (*bench).whoRunsIsTold,
		"ExitIsToldAndKept":            (*bench).exitIsToldAndKept,
		"RestartsAtOnce":               (*bench).restartsAtOnce,
		"SandboxAgainAtOnce":           (*bench).sandboxAgainAtOnce,
		"StopContainerEndsIt":          (*bench).stopContainerEndsIt,
		"NextAttemptStartsAtOnce":      (*bench).nextAttemptStartsAtOnce,
		"ResizeIsKnownAndStopsNothing": (*bench).resizeIsKnownAndStopsNothing,
		"RemoveContainerKillsIt":       (*bench).removeContainerKillsIt,
		"StopSandboxKillsAll":          (*bench).stopSandboxKillsAll,
		"RemoveSandboxForgets":         (*bench).removeSandboxForgets,
		"ExecSyncTellsTheCode":         (*bench).execSyncTellsTheCode,
		"UnknownIsDone":                (*bench).unknownIsDone,
		"WhatIsHandedOutIsTheReaders":  (*bench).whatIsHandedOutIsTheReaders,
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{T: t, woken: map[types.UID]int{}}
			m := boot(t, b.wake)
			b.Verbs, b.image, b.cgroup = m.Runtime, m.Image, m.Cgroup
			b.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "uid-web"}}
			t.Cleanup(func() { b.must(b.RemoveSandbox(context.WithoutCancel(t.Context()), b.pod.UID)) })
			c(b)
		})
	}
}

// bench is one case of the suite at work.
type bench struct {
	*testing.T
	Verbs
	image  cri.Image
	cgroup string
	pod    *corev1.Pod

	mu    sync.Mutex // guards woken
	woken map[types.UID]int
}

func (b *bench) wake(uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.woken[uid]++
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) sandbox() cri.Sandbox {
	b.Helper()
	s, err := b.StartSandbox(b.Context(), cri.SandboxConfig{Pod: b.pod, Hostname: "web", CgroupParent: b.cgroup})
	b.must(err)
	return s
}

func (b *bench) config(name string, attempt int, command ...string) cri.ContainerConfig {
	return cri.ContainerConfig{
		Pod: b.pod, Container: &corev1.Container{Name: name, Image: b.image.Name}, Attempt: attempt, SpecHash: "h",
		Image: b.image, Command: command,
		CgroupsPath: func(id string) string { return b.cgroup + "/" + id },
	}
}

func (b *bench) start(name string, attempt int, command ...string) cri.Container {
	b.Helper()
	c, err := b.StartContainer(b.Context(), b.config(name, attempt, command...))
	b.must(err)
	return c
}

// await waits until an attempt has exited.
func (b *bench) await(id string) cri.Container {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		p, _ := b.Pod(b.pod.UID)
		for _, c := range p.Containers {
			if c.ID == id && c.State == cri.Exited {
				return c
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("container %s has not exited", id)
		}
	}
}

func (b *bench) startSandboxIsIdempotent() {
	first, again := b.sandbox(), b.sandbox()
	if !first.Ready || first.ID != again.ID {
		b.Errorf("want the ready sandbox %+v again, got %+v", first, again)
	}
	b.must(b.StopSandbox(b.Context(), b.pod.UID))
	if next := b.sandbox(); next.ID == first.ID || !next.Ready {
		b.Errorf("want a new sandbox, got %+v", next)
	}
}

func (b *bench) noContainerWithoutSandbox() {
	_, err := b.StartContainer(b.Context(), b.config("main", 0, "sleep", "1000"))
	var e *cri.StartError
	if !errors.As(err, &e) || e.Reason != "CreateContainerError" {
		b.Errorf("want a CreateContainerError, got %v", err)
	}
}

func (b *bench) newestAttemptFirst() {
	b.sandbox()
	old := b.start("main", 0, "true")
	b.await(old.ID)
	b.start("side", 0, "sleep", "1000")
	b.start("main", 1, "sleep", "1000")
	p, _ := b.Pod(b.pod.UID)
	attempts := p.Attempts("main")
	if len(attempts) != 2 || attempts[0].Attempt != 1 || attempts[1].ID != old.ID || len(p.Containers) != 3 {
		b.Errorf("want attempts 1 and 0 of main, and side, got %+v", p.Containers)
	}
	if c := p.Container("main"); c.State != cri.Running || c.SpecHash != "h" || c.StartedAt.IsZero() {
		b.Errorf("want the newest attempt running, got %+v", c)
	}
}

// restartsAtOnce starts the next attempt of a pod's only container while what is
// left of the last one is being cleaned up: at every moment of that, and on a
// machine that is busy as on one that is idle.
func (b *bench) restartsAtOnce() {
	const attempts, moments = 120, 15
	b.sandbox()
	var done atomic.Bool
	defer done.Store(true)
	for attempt := range attempts {
		if attempt == attempts/2 {
			for range runtime.NumCPU() {
				go func() {
					for !done.Load() {
					}
				}()
			}
		}
		last := b.start("main", attempt, "true")
		b.await(last.ID)
		time.Sleep(time.Duration(attempt%moments) * 2 * time.Millisecond)
	}
	p, _ := b.Pod(b.pod.UID)
	for _, c := range p.Attempts("main") {
		if c.Reason != "Completed" {
			b.Errorf("want each attempt completed, got %+v", c)
		}
	}
}

func (b *bench) whoRunsIsTold() {
	b.sandbox()
	c := b.start("main", 0, "sleep", "1000")
	if c.User == nil || c.User.UID != 0 || c.User.GID != 0 || c.StopSignal != "SIGTERM" {
		b.Errorf("want root, ended by SIGTERM, got %+v and %q", c.User, c.StopSignal)
	}
}

// sandboxAgainAtOnce makes the next sandbox, with an init process, while the
// last container of the one before is being cleaned up.
func (b *bench) sandboxAgainAtOnce() {
	share := true
	b.pod.Spec.ShareProcessNamespace = &share
	for attempt := range 20 {
		b.sandbox()
		c := b.start("main", attempt, "true")
		b.await(c.ID)
		b.must(b.StopSandbox(b.Context(), b.pod.UID))
	}
}

func (b *bench) exitIsToldAndKept() {
	b.sandbox()
	good, bad := b.start("good", 0, "true"), b.start("bad", 0, "false")
	if c := b.await(good.ID); c.ExitCode != 0 || c.Reason != "Completed" || c.FinishedAt.Before(c.StartedAt) {
		b.Errorf("want it completed, got %+v", c)
	}
	if c := b.await(bad.ID); c.ExitCode != 1 || c.Reason != "Error" {
		b.Errorf("want an error with code 1, got %+v", c)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		b.mu.Lock()
		n := b.woken[b.pod.UID]
		b.mu.Unlock()
		if n >= 2 {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("want the pod's owner woken for each exit, got %d", n)
		}
	}
}

func (b *bench) stopContainerEndsIt() {
	b.sandbox()
	c := b.start("main", 0, "sleep", "1000")
	for range 2 {
		b.must(b.StopContainer(b.Context(), c.ID, 0))
	}
	p, _ := b.Pod(b.pod.UID)
	if got := p.Container("main"); got.State != cri.Exited || got.ExitCode != killed {
		b.Errorf("want it killed when stop returns, got %+v", got)
	}
}

// nextAttemptStartsAtOnce replaces a pod's only container as soon as its end is
// told, while the runtime still clears up after it.
func (b *bench) nextAttemptStartsAtOnce() {
	b.sandbox()
	const attempts = 20
	for i := range attempts {
		c := b.start("main", i, "sleep", "1000")
		b.must(b.StopContainer(b.Context(), c.ID, 0))
	}
	if p, _ := b.Pod(b.pod.UID); len(p.Attempts("main")) != attempts {
		b.Errorf("want %d attempts, got %+v", attempts, p.Containers)
	}
}

func (b *bench) removeContainerKillsIt() {
	b.sandbox()
	c := b.start("main", 0, "sleep", "1000")
	for range 2 {
		b.must(b.RemoveContainer(b.Context(), c.ID, false))
	}
	if p, _ := b.Pod(b.pod.UID); len(p.Containers) > 0 {
		b.Errorf("want no attempt left, got %+v", p.Containers)
	}
	if _, _, err := b.ExecSync(b.Context(), c.ID, []string{"true"}, 0); err == nil {
		b.Error("want no command to run in what was removed")
	}
}

func (b *bench) stopSandboxKillsAll() {
	b.sandbox()
	b.start("main", 0, "sleep", "1000")
	for range 2 {
		b.must(b.StopSandbox(b.Context(), b.pod.UID))
	}
	p, ok := b.Pod(b.pod.UID)
	if !ok || p.Sandbox != nil {
		b.Fatalf("want the pod without a sandbox, got %+v", p)
	}
	if c := p.Container("main"); c == nil || c.State != cri.Exited {
		b.Errorf("want the attempt kept as exited, got %+v", c)
	}
}

func (b *bench) removeSandboxForgets() {
	b.sandbox()
	b.start("main", 0, "sleep", "1000")
	for range 2 {
		b.must(b.RemoveSandbox(b.Context(), b.pod.UID))
	}
	if _, ok := b.Pod(b.pod.UID); ok || len(b.Pods()) > 0 {
		b.Errorf("want nothing left, got %+v", b.Pods())
	}
}

func (b *bench) execSyncTellsTheCode() {
	b.sandbox()
	c := b.start("main", 0, "sleep", "1000")
	for program, want := range map[string]int{"true": 0, "false": 1} {
		if code, _, err := b.ExecSync(b.Context(), c.ID, []string{program}, time.Minute); err != nil || code != want {
			b.Errorf("%s: want code %d, got %d and %v", program, want, code, err)
		}
	}
	b.must(b.StopContainer(b.Context(), c.ID, 0))
	if _, _, err := b.ExecSync(b.Context(), c.ID, []string{"true"}, time.Minute); err == nil {
		b.Error("want no command to run in what has exited")
	}
}

func (b *bench) unknownIsDone() {
	for verb, err := range map[string]error{
		"StopSandbox":     b.StopSandbox(b.Context(), "uid-none"),
		"RemoveSandbox":   b.RemoveSandbox(b.Context(), "uid-none"),
		"StopContainer":   b.StopContainer(b.Context(), "none", time.Second),
		"RemoveContainer": b.RemoveContainer(b.Context(), "none", false),
	} {
		if err != nil {
			b.Errorf("%s: want success, got %v", verb, err)
		}
	}
}

func (b *bench) whatIsHandedOutIsTheReaders() {
	b.sandbox()
	b.start("main", 0, "sleep", "1000")
	p, _ := b.Pod(b.pod.UID)
	p.Sandbox.Ready, p.Containers[0].Name = false, "changed"
	if again, _ := b.Pod(b.pod.UID); !again.Sandbox.Ready || again.Container("main") == nil {
		b.Errorf("want the pod as it was, got %+v", again)
	}
}

func (b *bench) resizeIsKnownAndStopsNothing() {
	b.sandbox()
	c := b.start("main", 0, "sleep", "1000")
	own := corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}}
	to := cri.Resize{
		Linux: &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: new(uint64(512))}, Memory: &specs.LinuxMemory{Limit: new(int64(32 << 20))}},
		Own:   own, Pod: &own,
	}
	b.must(b.ResizeContainer(b.Context(), c.ID, to))
	b.must(b.ResizeContainer(b.Context(), c.ID, to))
	p, _ := b.Pod(b.pod.UID)
	if got := p.Container("main"); got.ID != c.ID || got.State != cri.Running || !equality.Semantic.DeepEqual(got.Resources, own) || !equality.Semantic.DeepEqual(got.PodResources, &own) {
		b.Errorf("want the same container to run with %+v, got %+v", own, got)
	}
	b.must(b.StopContainer(b.Context(), c.ID, 0))
	if err := b.ResizeContainer(b.Context(), c.ID, to); !errors.Is(err, cri.ErrNotRunning) {
		b.Errorf("what has ended has no size, got %v", err)
	}
}
