package podsync

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// check compares what was done with what should have been.
func check(t *testing.T, reason string, want, got []string) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)); d != "" {
		t.Errorf("%s (-want +got):\n%s", reason, d)
	}
}

func TestPodLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode().run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		check(t, "a pod starts", []string{"cgroup web", "volumes web", "pull busybox:1", "sandbox web", "start main 0"}, a.log())
		s, _ := a.pool.Status("uid-web")
		if s.Phase != corev1.PodRunning || s.PodIP != "10.88.0.7" || !s.ContainerStatuses[0].Ready {
			t.Errorf("a pod that was started is running and ready, got %+v", s)
		}

		a.want()
		check(t, "a pod that is in no source goes, and leaves nothing",
			[]string{"stop main 30s", "stop-sandbox web", "remove-volumes uid-web", "remove-cgroup uid-web", "remove main", "remove-sandbox uid-web"}, a.log())
		if _, known := a.pool.Status("uid-web"); known || len(a.statuses) > 0 {
			t.Error("a pod that is gone has no status")
		}
		if uids, err := a.pool.cfg.records().list(); err != nil || len(uids) > 0 {
			t.Errorf("a pod that is gone has no record: %v %v", uids, err)
		}
	})
}

func TestNothingIsRemovedBeforeSourcesReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		a := n.run(t, dir)
		a.want(basePod())
		a.end()
		a = n.run(t, dir)
		defer a.end()
		n.log()
		time.Sleep(time.Hour)
		check(t, "an agent that knows no sources yet touches nothing", nil, n.log())
		a.want()
		if _, there := n.Pod("uid-web"); there {
			t.Error("once they have reported, an unwanted pod goes")
		}
	})
}

func TestAgentRestartChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		pod := basePod()
		pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
		a := n.run(t, dir)
		a.want(pod)
		before, _ := a.pool.Status("uid-web")
		running := a.container("main")
		a.end()
		n.log()
		time.Sleep(time.Hour)
		n.mu.Lock()
		clear(n.statuses) // what the agent tells is kept in its own memory
		n.mu.Unlock()

		a = n.run(t, dir)
		defer a.end()
		a.want(pod)
		check(t, "a running pod is taken over untouched", nil, n.log())
		after := n.statuses["uid-web"]
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("its status does not change, nor the times in it (-before +after):\n%s", d)
		}
		if d := cmp.Diff(Health{Started: true, Ready: true}, n.seeded[running.ID]); d != "" {
			t.Errorf("its readiness is handed on (-want +got):\n%s", d)
		}
	})
}

func TestCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		a := n.run(t, dir)
		a.want(basePod())
		began := time.Now()
		var restarts []time.Duration
		for i := range 4 {
			n.Exit(a.container("main").ID, 1)
			for a.container("main").Attempt == i {
				time.Sleep(time.Second)
				synctest.Wait()
				if i == 2 { // a new agent in the middle of a delay neither shortens nor prolongs it
					a.end()
					a = n.run(t, dir)
					a.want(basePod())
				}
			}
			restarts = append(restarts, a.container("main").StartedAt.Sub(began))
		}
		defer a.end()
		want := []time.Duration{0, 11 * time.Second, 31 * time.Second, 71 * time.Second}
		for i, w := range want {
			if got := restarts[i]; got < w-2*time.Second || got > w+2*time.Second {
				t.Errorf("restart %d: want at about %s, got %s", i+1, w, got)
			}
		}
		n.Exit(a.container("main").ID, 1)
		synctest.Wait()
		s, _ := a.pool.Status("uid-web")
		c := s.ContainerStatuses[0]
		if c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" ||
			!strings.HasPrefix(c.State.Waiting.Message, "back-off 1m20s restarting failed container=main pod=web_default(uid-web), next try at ") {
			t.Errorf("the status says what the container waits for, got %+v", c.State)
		}
		if c.LastTerminationState.Terminated == nil || c.RestartCount != 4 || s.Phase != corev1.PodRunning {
			t.Errorf("and how often it has failed, got %+v", c)
		}
	})
}

func TestDeletionCancelsPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.pullTime = time.Hour
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		began := time.Now()
		a.want()
		if _, known := a.pool.Status("uid-web"); known || time.Since(began) > 0 {
			t.Errorf("a slow pull does not delay the end of its pod: known %t after %s", known, time.Since(began))
		}
		if slices.ContainsFunc(n.events, func(e string) bool { return strings.HasPrefix(e, "Failed") }) {
			t.Errorf("what was called off has not failed: %q", n.events)
		}
	})
}

func TestSlowPullHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		a.want(pod)
		n.pullTime = time.Hour // the next attempt's image is looked at anew
		other := basePod()
		other.Name, other.UID = "other", "uid-other"
		a.want(pod, other)
		n.mu.Lock()
		n.probes[a.container("main").ID] = Health{Started: true, Failed: "liveness"}
		n.mu.Unlock()
		a.pool.Wake("uid-web")
		synctest.Wait()
		if c := a.container("main"); c.State != cri.Exited {
			t.Error("a liveness failure is acted on while another pod pulls")
		}
	})
}

func TestEditReplacesPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(5*time.Second, 0)
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		edited := basePod()
		edited.UID = "uid-new"
		a.want(edited)
		if _, there := n.Pod("uid-new"); there {
			t.Error("the new pod waits for the old one of its name")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, there := n.Pod("uid-web"); there {
			t.Error("the old pod is gone after its grace period")
		}
		if p, _ := n.Pod("uid-new"); p.Container("main") == nil {
			t.Error("then the new one starts")
		}
	})
}

func TestEditWhileAgentIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		n.Slow(time.Hour, 0)
		a := n.run(t, dir)
		pod := basePod()
		pod.Spec.TerminationGracePeriodSeconds = new(int64(45))
		a.want(pod)
		a.end()
		n.log()
		a = n.run(t, dir)
		defer a.end()
		edited := basePod()
		edited.UID = "uid-new"
		a.want(edited)
		check(t, "the old pod ends with its own grace period, and the new one waits", []string{"stop main 45s"}, n.log())
		time.Sleep(45 * time.Second)
		synctest.Wait()
		if p, _ := n.Pod("uid-new"); p.Container("main") == nil {
			t.Error("then the new one starts")
		}
	})
}

func TestReturnWhileEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(5*time.Second, 0)
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		old := a.container("main").ID
		a.want()
		a.want(basePod()) // the same manifest, back while the pod still ends
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if c := a.container("main"); c == nil || c.ID == old || c.State != cri.Running {
			t.Errorf("a pod that returns while it ends is ended first, then started anew: %+v", c)
		}
	})
}

func TestReturnWhileAgentIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		n.Slow(5*time.Second, 0)
		a := n.run(t, dir)
		a.want(basePod())
		old := a.container("main").ID
		a.want()
		a.end() // in the middle of the grace period
		a = n.run(t, dir)
		defer a.end()
		a.want(basePod())
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if c := a.container("main"); c == nil || c.ID == old || c.State != cri.Running {
			t.Errorf("a pod that was being removed and is wanted again is removed, then started anew: %+v", c)
		}
	})
}

func TestRejectionIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		a := n.run(t, dir)
		pod := basePod()
		a.pool.cfg.Room.Allocatable = list("pods", "0")
		a.want(pod)
		if s, _ := a.pool.Status("uid-web"); s.Reason != "OutOfpods" {
			t.Errorf("there is no room, got %+v", s)
		}
		before, _ := a.pool.Status("uid-web")
		a.end()
		time.Sleep(time.Hour)
		a = n.run(t, dir)
		a.pool.cfg.Room.Allocatable = list("pods", "0")
		a.want(pod)
		after, _ := a.pool.Status("uid-web")
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("where there is still none, nothing is new (-before +after):\n%s", d)
		}
		a.end()
		a = n.run(t, dir)
		defer a.end()
		a.want(pod)
		if s, _ := a.pool.Status("uid-web"); s.Phase != corev1.PodRunning || s.Reason != "" {
			t.Errorf("an agent with more room lets the pod in, got %+v", s)
		}
	})
}
