package podsync

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// version is the base pod with such resources, as its source has it the nth time.
func version(n int64, r corev1.ResourceRequirements) *corev1.Pod {
	pod := basePod()
	pod.Generation = n
	pod.Spec.Containers[0].Resources = r
	return pod
}

// resizeReasons are the resize conditions of a pod, and the events about resizes since the last call.
func (a *agent) resizeReasons() (conditions, events []string) {
	s, _ := a.pool.Status("uid-web")
	for _, c := range s.Conditions {
		if c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress {
			conditions = append(conditions, strings.TrimSuffix(string(c.Type)+" "+c.Reason, " "))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.events {
		if reason, _, _ := strings.Cut(e, ":"); strings.HasPrefix(reason, "Resize") {
			events = append(events, reason)
		}
	}
	a.events = nil
	return conditions, events
}

func (a *agent) expect(reason string, conditions, events []string) {
	a.t.Helper()
	gotConditions, gotEvents := a.resizeReasons()
	check(a.t, reason+": conditions", conditions, gotConditions)
	check(a.t, reason+": events", events, gotEvents)
}

func TestResizeOfRunningPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		a := n.run(t, dir)
		a.pool.cfg.Room.Allocatable = list("cpu", "1", "memory", "1Gi")
		a.want(version(1, resources("100m", "", "32Mi", "64Mi")))
		before := a.container("main").ID
		a.expect("a pod that starts is not resized", nil, nil)
		n.log()

		a.want(version(2, resources("200m", "", "32Mi", "64Mi")))
		check(t, "pod and container are resized", []string{"resize-pod 100m 200m", "resize main"}, n.log())
		a.expect("and nothing is left to be told", nil, []string{"ResizeStarted", "ResizeCompleted"})
		if c := a.container("main"); c.ID != before || c.Resources.Requests.Cpu().MilliValue() != 200 {
			t.Errorf("the container goes on with its new size: %+v", c)
		}

		big := version(3, resources("2", "", "32Mi", "64Mi"))
		a.want(big)
		check(t, "what does not fit changes nothing", nil, n.log())
		a.expect("it is deferred", []string{"PodResizePending Deferred"}, []string{"ResizeDeferred"})
		s, _ := a.pool.Status("uid-web")
		if c := findCondition(s.Conditions, corev1.PodResizePending); c.Message != "Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1000" ||
			c.ObservedGeneration != 3 || s.ObservedGeneration != 3 || s.ContainerStatuses[0].AllocatedResources.Cpu().MilliValue() != 200 {
			t.Errorf("with the kubelet's words, and what the pod still has: %+v", s)
		}
		a.end()

		a = n.run(t, dir)
		a.pool.cfg.Room.Allocatable = list("cpu", "1", "memory", "1Gi")
		a.want(big)
		check(t, "the next agent knows what was granted", nil, n.log())
		a.expect("and what was not", []string{"PodResizePending Deferred"}, nil)
		a.want(version(4, resources("200m", "", "32Mi", "64Mi")))
		a.expect("a wish that is taken back is forgotten", nil, nil)
		a.end()
		a = n.run(t, dir)
		defer a.end()
		a.want(version(5, resources("300m", "", "32Mi", "64Mi")))
		if c := a.container("main"); c.ID != before || c.Resources.Requests.Cpu().MilliValue() != 300 {
			t.Errorf("a wish made while there was no agent is granted by the next: %+v", c)
		}
	})
}

func TestDeferredResizeGetsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		a.pool.cfg.Room.Allocatable = list("cpu", "1")
		other := version(1, resources("700m", "", "", ""))
		other.Name, other.UID = "other", "uid-other"
		a.want(version(1, resources("300m", "", "", "")), other)
		a.resizeReasons()
		wish := version(2, resources("600m", "", "", ""))
		a.want(wish, other)
		a.expect("there is no room", []string{"PodResizePending Deferred"}, []string{"ResizeDeferred"})
		less := other.DeepCopy()
		less.Spec.Containers[0].Resources = resources("400m", "", "", "")
		a.want(wish, less)
		a.expect("until another pod wants less, in the same look at all of them", nil,
			[]string{"ResizeStarted", "ResizeStarted", "ResizeCompleted", "ResizeCompleted"})
		wish = version(3, resources("900m", "", "", ""))
		a.want(wish, less)
		a.expect("again there is none", []string{"PodResizePending Deferred"}, []string{"ResizeDeferred"})
		a.want(wish)
		a.expect("until another pod is gone", nil, []string{"ResizeStarted", "ResizeCompleted"})
	})
}

func TestResizeByRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(time.Second, 0)
		a := n.run(t, t.TempDir())
		defer a.end()
		restarting := func(n int64, r corev1.ResourceRequirements) *corev1.Pod {
			pod := version(n, r)
			pod.Spec.Containers[0].ResizePolicy = policy(corev1.RestartContainer, corev1.RestartContainer)
			return pod
		}
		a.want(restarting(1, usual()))
		a.resizeReasons()
		n.log()
		a.want(restarting(2, resources("150m", "200m", "32Mi", "64Mi")))
		a.expect("it is told while the container stops", []string{"PodResizeInProgress"}, []string{"ResizeStarted"})
		time.Sleep(time.Second)
		synctest.Wait()
		check(t, "stop, resize, start", []string{"stop main 30s", "resize-pod 100m 150m", "pull busybox:1", "start main 1"}, n.log())
		a.expect("then it is over", nil, []string{"ResizeCompleted"})
		s, _ := a.pool.Status("uid-web")
		if c := s.ContainerStatuses[0]; c.RestartCount != 1 || c.Resources.Requests.Cpu().MilliValue() != 150 || c.LastTerminationState.Terminated.Reason != "Error" {
			t.Errorf("the next attempt has the new size, and nobody asked for it: %+v", c)
		}
	})
}

func TestResizeBelowUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.memory = 20 << 20
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(version(1, usual()))
		a.resizeReasons()
		n.log()
		a.want(version(2, resources("100m", "200m", "8Mi", "16Mi")))
		check(t, "nothing is touched", nil, n.log())
		a.expect("the error is told, once", []string{"PodResizeInProgress Error"}, []string{"ResizeStarted", "ResizeError"})
		s, _ := a.pool.Status("uid-web")
		want := `cannot decrease memory limits: attempting to set pod memory limit (16777216) below current usage (20971520)` + "\n" +
			`attempting to set container "main" memory limit (16777216) below current usage (20971520)`
		if c := findCondition(s.Conditions, corev1.PodResizeInProgress); c.Message != want {
			t.Errorf("want %q, got %q", want, c.Message)
		}
		time.Sleep(time.Minute)
		a.expect("however often it is tried", []string{"PodResizeInProgress Error"}, nil)
		n.mu.Lock()
		n.memory = 10 << 20
		n.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		a.expect("once memory is given back it works", nil, []string{"ResizeCompleted"})
		check(t, "as it would have at first", []string{"resize-pod 100m 100m", "resize main"}, n.log())
	})
}

func TestResizeTakenBackAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(version(1, usual()))
		a.resizeReasons()
		n.mu.Lock()
		n.failing["resize-pod"] = errors.New("no")
		n.mu.Unlock()
		a.want(version(2, resources("150m", "200m", "32Mi", "64Mi")))
		a.expect("it fails", []string{"PodResizeInProgress Error"}, []string{"ResizeStarted", "ResizeError"})
		n.mu.Lock()
		delete(n.failing, "resize-pod")
		n.mu.Unlock()
		a.want(version(3, usual()))
		a.expect("going back is a resize of its own, and not held up", nil, []string{"ResizeStarted", "ResizeCompleted"})
	})
}

func TestByTurn(t *testing.T) {
	older := now.Add(-time.Hour)
	named := func(name string, change func(*ask)) ask {
		a := ask{pod: version(2, resources("200m", "", "", "")), had: version(1, resources("100m", "", "", "")), since: now}
		a.pod.UID = types.UID(name)
		change(&a)
		return a
	}
	asks := []ask{
		named("new", func(a *ask) { a.since = time.Time{} }),
		named("plain", func(*ask) {}),
		named("older", func(a *ask) { a.since = older }),
		named("guaranteed", func(a *ask) { a.guaranteed = true }),
		named("vip", func(a *ask) { a.pod.Spec.Priority = new(int32(5)) }),
		named("less", func(a *ask) { a.pod.Spec.Containers[0].Resources = resources("50m", "", "", "") }),
	}
	slices.SortStableFunc(asks, byTurn)
	var got []string
	for _, a := range asks {
		got = append(got, string(a.pod.UID))
	}
	if d := cmp.Diff([]string{"less", "vip", "guaranteed", "older", "plain", "new"}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestJudge(t *testing.T) {
	room := Room{Allocatable: list("cpu", "1")}
	a := ask{had: version(1, usual()), pod: version(2, resources("200m", "200m", "64Mi", "64Mi"))}
	if r := judge(&a, Load{}, room); r == nil || r.Reason != corev1.PodReasonInfeasible {
		t.Errorf("a pod keeps its class, got %+v", r)
	}
	a.pod = version(2, resources("800m", "900m", "32Mi", "64Mi"))
	if r := judge(&a, Load{}, room); r != nil {
		t.Errorf("it fits, got %+v", r)
	}
	var others Load
	others.Add(version(1, usual()))
	if r := judge(&a, others, Room{Allocatable: list("cpu", "850m")}); r == nil || r.Reason != corev1.PodReasonDeferred {
		t.Errorf("it does not fit beside the others, got %+v", r)
	}
}
