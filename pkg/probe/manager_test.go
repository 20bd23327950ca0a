package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// bench is a Manager whose containers answer as a test says. A probe's command
// is its kind.
type bench struct {
	*Manager
	t    *testing.T
	born time.Time
	stop context.CancelFunc
	done chan error

	mu      sync.Mutex
	answers map[string]error // by kind; nil is success
	asked   []string         // kind and second
	changes int
	events  []string
	takes   time.Duration
}

var errDown = errors.New("down") // an exit code, not a runtime that fails

func newBench(t *testing.T) *bench {
	b := &bench{t: t, born: time.Now(), answers: map[string]error{}, done: make(chan error, 1)}
	b.Manager = New(Deps{
		Exec: func(ctx context.Context, _ string, cmd []string, timeout time.Duration) (int, []byte, error) {
			b.mu.Lock()
			b.asked = append(b.asked, fmt.Sprintf("%s@%d", cmd[0], int(time.Since(b.born)/time.Second)))
			err, takes := b.answers[cmd[0]], b.takes
			b.mu.Unlock()
			select {
			case <-ctx.Done():
				return 0, nil, ctx.Err()
			case <-time.After(min(takes, timeout)):
			}
			switch {
			case errors.Is(err, errDown):
				return 1, []byte("down"), nil
			case takes > timeout:
				return 0, nil, context.DeadlineExceeded
			default:
				return 0, nil, err
			}
		},
		OnChange: func(types.UID) { b.mu.Lock(); defer b.mu.Unlock(); b.changes++ },
		Event: func(_ *corev1.Pod, _, reason, message string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, reason+": "+message)
		},
	})
	return b
}

// run starts the manager, which the test must end.
func (b *bench) run() {
	ctx, stop := context.WithCancel(b.t.Context())
	b.stop = stop
	go func() { b.done <- b.Run(ctx) }()
}

func (b *bench) end() {
	b.t.Helper()
	b.stop()
	if err := <-b.done; err != nil {
		b.t.Errorf("run: %v", err)
	}
}

// say sets what a probe answers from now on.
func (b *bench) say(kind string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[kind] = err
}

// until waits until so long after the start and returns what was asked since the
// last call.
func (b *bench) until(d time.Duration) string {
	time.Sleep(d - time.Since(b.born))
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := strings.Join(b.asked, " ")
	b.asked = nil
	return asked
}

// probe asks every ten seconds and takes one answer for the truth.
func probe(kind string, change ...func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{kind}}},
		PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1,
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func pod(probes ...*corev1.Probe) *corev1.Pod {
	c := corev1.Container{Name: "main"}
	for _, p := range probes {
		switch p.Exec.Command[0] {
		case Startup:
			c.StartupProbe = p
		case Liveness:
			c.LivenessProbe = p
		case Readiness:
			c.ReadinessProbe = p
		}
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
}

// state is all that is known of the container.
func (b *bench) state() string {
	return fmt.Sprintf("started=%t ready=%t failed=%q", b.Started("c1"), b.Ready("c1"), b.Failed("c1"))
}

func (b *bench) check(reason, want, got string) {
	b.t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		b.t.Errorf("%s (-want +got):\n%s", reason, d)
	}
}

// on runs a test on a manager that runs.
func on(t *testing.T, f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		defer b.end()
		f(b)
	})
}

func TestNoProbes(t *testing.T) {
	on(t, func(b *bench) {
		b.check("what nobody knows is nothing", `started=false ready=false failed=""`, b.state())
		b.Sync(pod(), "main", "c1", time.Now())
		b.check("a container without probes is ready because it runs", `started=true ready=true failed=""`, b.state())
		b.Sync(pod(), "nope", "c2", time.Now())
		if b.Started("c2") {
			b.t.Error("a container that the pod does not have is not known")
		}
	})
}

func TestOrderAndPeriod(t *testing.T) {
	on(t, func(b *bench) {
		b.say(Startup, errDown)
		p := pod(probe(Startup, func(p *corev1.Probe) { p.FailureThreshold = 5 }), probe(Liveness),
			probe(Readiness, func(p *corev1.Probe) { p.PeriodSeconds = 3 }))
		b.Sync(p, "main", "c1", time.Now())
		b.Sync(p, "main", "c1", time.Now())
		b.check("until the container has started it is asked for nothing else", "startup@0 startup@10", b.until(15*time.Second))
		b.check("and is neither started nor ready", `started=false ready=false failed=""`, b.state())
		b.say(Startup, nil)
		b.until(19 * time.Second)
		got := strings.Fields(b.until(27 * time.Second))
		if len(got) != 5 || got[0] != "startup@20" || strings.Count(strings.Join(got, " "), "readiness@") != 3 {
			b.t.Errorf("the others are asked the moment it has, each in its own period: %q", got)
		}
		b.check("now it is both", `started=true ready=true failed=""`, b.state())
		if again := b.until(90 * time.Second); strings.Contains(again, Startup) {
			b.t.Errorf("what has started is not asked again whether it has: %q", again)
		}
	})
}

func TestInitialDelayCountsFromTheStart(t *testing.T) {
	on(t, func(b *bench) {
		delay := func(p *corev1.Probe) { p.InitialDelaySeconds = 30 }
		b.Sync(pod(probe(Readiness, delay)), "main", "c1", time.Now().Add(-25*time.Second))
		b.check("not when the agent heard of it", "readiness@5", b.until(6*time.Second))
	})
}

func TestPeriodIncludesTheQuestion(t *testing.T) {
	on(t, func(b *bench) {
		b.takes = 3 * time.Second
		slow := func(p *corev1.Probe) { p.TimeoutSeconds = 20 }
		b.Sync(pod(probe(Readiness, slow)), "main", "c1", time.Now())
		b.check("a slow answer does not stretch the period", "readiness@0 readiness@10 readiness@20", b.until(25*time.Second))
		b.mu.Lock()
		b.takes = 15 * time.Second
		b.mu.Unlock()
		b.check("and no two questions overlap", "readiness@30 readiness@45 readiness@60", b.until(65*time.Second))
	})
}

func TestReadinessComesAndGoes(t *testing.T) {
	on(t, func(b *bench) {
		b.Sync(pod(probe(Readiness, func(p *corev1.Probe) { p.FailureThreshold, p.SuccessThreshold = 2, 2 })), "main", "c1", time.Now())
		b.check("not ready before it said so", `started=true ready=false failed=""`, b.state())
		b.until(11 * time.Second)
		b.check("ready after two answers", `started=true ready=true failed=""`, b.state())
		b.say(Readiness, errDown)
		b.until(21 * time.Second)
		b.check("one failure changes nothing", `started=true ready=true failed=""`, b.state())
		b.until(31 * time.Second)
		b.check("two do", `started=true ready=false failed=""`, b.state())
		b.say(Readiness, nil)
		b.until(51 * time.Second)
		b.check("and it may come back", `started=true ready=true failed=""`, b.state())
		if b.changes != 3 {
			b.t.Errorf("the owner hears of changes and of nothing else: %d", b.changes)
		}
		want := "Unhealthy: Readiness probe of container main failed: command exited with 1: down"
		if len(b.events) != 2 || b.events[0] != want {
			b.t.Errorf("each failure is an event, got %q", b.events)
		}
	})
}

func TestLivenessGivesUpOnce(t *testing.T) {
	on(t, func(b *bench) {
		b.say(Liveness, errDown)
		b.Sync(pod(probe(Liveness, func(p *corev1.Probe) { p.FailureThreshold = 3 })), "main", "c1", time.Now())
		b.until(15 * time.Second)
		b.check("below its threshold it has not failed", `started=true ready=true failed=""`, b.state())
		b.until(20 * time.Second)
		b.check("at it, it has", `started=true ready=true failed="liveness"`, b.state())
		b.say(Liveness, nil)
		b.check("a container that is about to be stopped is left alone", "", b.until(time.Hour))
		b.check("and cannot talk its way out", `started=true ready=true failed="liveness"`, b.state())
		b.Remove("c1")
		b.Sync(pod(probe(Liveness)), "main", "c2", time.Now())
		b.check("its successor is asked from the beginning", "liveness@3600", b.until(time.Hour+time.Second))
	})
}

func TestStartupGivesUp(t *testing.T) {
	on(t, func(b *bench) {
		b.say(Startup, errDown)
		b.Sync(pod(probe(Startup, func(p *corev1.Probe) { p.FailureThreshold = 2 }), probe(Readiness)), "main", "c1", time.Now())
		b.until(time.Minute)
		b.check("what never starts has failed, and nothing else was asked", `started=false ready=false failed="startup"`, b.state())
	})
}

func TestTimeoutIsAFailure(t *testing.T) {
	on(t, func(b *bench) {
		b.takes = time.Hour
		b.Sync(pod(probe(Liveness)), "main", "c1", time.Now())
		b.until(2 * time.Second)
		b.check("who does not answer within the time is not well", `started=true ready=true failed="liveness"`, b.state())
	})
}

func TestRuntimeTroubleIsNoAnswer(t *testing.T) {
	on(t, func(b *bench) {
		b.Sync(pod(probe(Liveness), probe(Readiness)), "main", "c1", time.Now())
		b.until(5 * time.Second)
		b.say(Liveness, errors.New("containerd is away"))
		b.say(Readiness, errors.New("containerd is away"))
		b.until(time.Minute)
		b.check("a container is not blamed for the runtime", `started=true ready=true failed=""`, b.state())
		if len(b.events) == 0 || b.events[0] == "" || !strings.Contains(b.events[0], "errored: containerd is away") {
			b.t.Errorf("but it is told: %q", b.events)
		}
	})
}

func TestAnEndingPodIsAskedForReadinessOnly(t *testing.T) {
	on(t, func(b *bench) {
		b.Sync(pod(probe(Liveness), probe(Readiness)), "main", "c1", time.Now())
		b.until(5 * time.Second)
		b.Ending("uid")
		b.Ending("uid")
		b.say(Readiness, errDown)
		b.check("liveness is over", "readiness@10", b.until(15*time.Second))
		b.check("readiness goes", `started=true ready=false failed=""`, b.state())
		b.RemovePod("uid")
		b.check("then all is over", "", b.until(time.Hour))
		b.check("and forgotten", `started=false ready=false failed=""`, b.state())
	})
}

func TestRemoveEndsAQuestion(t *testing.T) {
	on(t, func(b *bench) {
		b.takes = time.Hour
		b.Sync(pod(probe(Liveness, func(p *corev1.Probe) { p.TimeoutSeconds = 3000 })), "main", "c1", time.Now())
		b.until(time.Second)
		b.Remove("c1")
		b.Remove("c1")
		synctest.Wait() // the bubble would report a question that goes on
		if len(b.events) > 0 || b.changes > 0 {
			b.t.Errorf("what was called off has not failed: %q, %d changes", b.events, b.changes)
		}
	})
}

func TestSyncBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Sync(pod(probe(Readiness)), "main", "c1", time.Now())
		b.Sync(pod(probe(Readiness)), "main", "c2", time.Now())
		b.Remove("c2")
		synctest.Wait()
		b.check("nothing runs yet", "", b.until(0))
		b.run()
		defer b.end()
		b.check("what is left is asked", "readiness@0", b.until(5*time.Second))
	})
}

func TestEndingBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Sync(pod(probe(Liveness), probe(Readiness)), "main", "c1", time.Now())
		b.Ending("uid")
		b.run()
		defer b.end()
		b.check("an agent that comes back to an ending pod asks for readiness only", "readiness@0", b.until(5*time.Second))
	})
}

// TestAgentRestart is about containers that an earlier agent knew.
func TestAgentRestart(t *testing.T) {
	cases := map[string]struct {
		reason         string
		started, ready bool
		failing        []string
		want           string // right after the restart, and a second later
		later          string // after a period and all that it brings
	}{
		"Ready": {
			reason:  "a ready container stays ready until its own probe says otherwise",
			started: true, ready: true,
			want: `started=true ready=true failed=""`, later: `started=true ready=true failed=""`,
		},
		"NotReady": {
			reason:  "an unready one becomes ready when it says so",
			started: true, ready: false,
			want: `started=true ready=false failed=""`, later: `started=true ready=true failed=""`,
		},
		"StartupProbeIsOver": {
			reason:  "a startup probe that would fail by now is not asked again",
			started: true, ready: true, failing: []string{Startup},
			want: `started=true ready=true failed=""`, later: `started=true ready=true failed=""`,
		},
		"NotStarted": {
			reason:  "one that was starting is asked on",
			started: false, ready: false,
			want: `started=false ready=false failed=""`, later: `started=true ready=true failed=""`,
		},
		"BecameUnready": {
			reason:  "one that became unready while no agent ran is found out",
			started: true, ready: true, failing: []string{Readiness},
			want: `started=true ready=true failed=""`, later: `started=true ready=false failed=""`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			on(t, func(b *bench) {
				for _, kind := range tc.failing {
					b.say(kind, errDown)
				}
				b.Seed("uid", "c1", tc.started, tc.ready)
				b.check(tc.reason+", before it is synced", tc.want, b.state())
				b.mu.Lock()
				b.takes = time.Millisecond
				b.mu.Unlock()
				b.Sync(pod(probe(Startup), probe(Readiness)), "main", "c1", time.Now().Add(-time.Hour))
				b.check(tc.reason+", before it is asked", tc.want, b.state())
				asked := b.until(11 * time.Second)
				b.check(tc.reason+" (asked "+asked+")", tc.later, b.state())
			})
		})
	}
}

func TestSeedsOfGonePodsAreForgotten(t *testing.T) {
	on(t, func(b *bench) {
		b.Seed("uid", "c1", true, true)
		b.RemovePod("uid")
		if len(b.containers) > 0 {
			b.t.Errorf("still known: %v", b.containers)
		}
	})
}

func TestCounts(t *testing.T) {
	on(t, func(b *bench) {
		b.Sync(pod(probe(Readiness)), "main", "c1", time.Now())
		b.until(15 * time.Second) // asked at 0 and 10
		b.say(Readiness, errDown)
		b.until(25 * time.Second)
		b.say(Readiness, errors.New("containerd is away"))
		b.until(35 * time.Second)
		var got []string
		for _, c := range b.Counts() {
			got = append(got, fmt.Sprintf("%s %s %s %s %d", c.Pod.UID, c.Container, c.Kind, c.Outcome, c.Answers))
		}
		b.check("every answer is counted by what it was", "uid main readiness successful 2\nuid main readiness failed 1\nuid main readiness unknown 1", strings.Join(got, "\n"))
		b.Remove("c1")
		if left := b.Counts(); len(left) > 0 {
			b.t.Errorf("counts go with their container: %v", left)
		}
	})
}
