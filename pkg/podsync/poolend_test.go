package podsync

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.cgroups["uid-crashed"] = true
		dir := t.TempDir()
		if err := os.MkdirAll(podDir(dir, "uid-rebooted", "volumes"), 0o750); err != nil {
			t.Fatal(err)
		}
		n.Put(cri.Pod{UID: "uid-lost", Namespace: "default", Name: "lost", Containers: []cri.Container{{ID: "x", Name: "main", State: cri.Running}}})
		a := n.run(t, dir)
		defer a.end()
		a.want(basePod())
		if !slices.Contains(n.log(), "remove-volumes uid-rebooted") {
			t.Error("volumes without a pod are removed")
		}
		if len(n.cgroups) != 1 || len(n.Pods()) != 1 {
			t.Errorf("what nobody wants is removed: cgroups %v, pods %v", n.cgroups, n.Pods())
		}
		if c := a.container("main"); c == nil || c.State != cri.Running {
			t.Error("what is wanted runs")
		}
	})
}

// TestEndedStaysEnded is about pods that are over: neither the next agent nor a
// machine that restarts, and so forgets all but containerd, runs them again.
func TestEndedStaysEnded(t *testing.T) {
	cases := map[string]struct {
		reason string
		code   int32
		reboot bool
		want   corev1.PodPhase
	}{
		"Succeeded":         {"what has succeeded is done", 0, false, corev1.PodSucceeded},
		"Failed":            {"what has failed for good stays failed", 1, false, corev1.PodFailed},
		"SucceededRebooted": {"its exit code is enough to know", 0, true, corev1.PodSucceeded},
		"FailedRebooted":    {"in both cases", 1, true, corev1.PodFailed},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, dir := newNode(), t.TempDir()
				pod := basePod()
				pod.Spec.RestartPolicy = corev1.RestartPolicyNever
				a := n.run(t, dir)
				a.want(pod)
				n.Exit(a.container("main").ID, tc.code)
				synctest.Wait()
				a.end()
				if tc.reboot {
					dir = t.TempDir()
				}
				n.log()
				a = n.run(t, dir)
				defer a.end()
				a.want(pod)
				if slices.ContainsFunc(n.log(), func(v string) bool { return strings.HasPrefix(v, "start ") || strings.HasPrefix(v, "sandbox ") }) {
					t.Errorf("%s: it was started again", tc.reason)
				}
				s, _ := a.pool.Status("uid-web")
				if c := s.ContainerStatuses[0]; s.Phase != tc.want || c.State.Terminated == nil || c.State.Terminated.ExitCode != tc.code || c.RestartCount != 0 {
					t.Errorf("%s: got %s, %+v", tc.reason, s.Phase, c)
				}
			})
		})
	}
}

func TestSandboxFailureIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.failing["sandbox"] = errors.New("cni plugin not initialized")
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		s, _ := a.pool.Status("uid-web")
		if w := s.ContainerStatuses[0].State.Waiting; s.Phase != corev1.PodPending || w == nil || !strings.Contains(w.Message, "cni plugin not initialized") {
			t.Errorf("the status says why the pod does not start, got %+v", s)
		}
		n.mu.Lock()
		n.failing["sandbox"] = nil
		n.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		if c := a.container("main"); c == nil || c.State != cri.Running {
			t.Error("it starts when the network is there")
		}
	})
}

func TestWakeAllRetriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.failing["pull"] = errors.New("no such image")
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		n.mu.Lock()
		n.failing["pull"] = nil
		n.mu.Unlock()
		began := time.Now()
		a.pool.WakeAll()
		synctest.Wait()
		if c := a.container("main"); c == nil || time.Since(began) > 0 {
			t.Errorf("an image that has arrived is used at once: %+v after %s", c, time.Since(began))
		}
	})
}

func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		n.Slow(5*time.Second, 0)
		cfg := n.config(t, dir)
		cfg.Room.Allocatable = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}
		a := n.run(t, dir)
		defer a.end()
		a.pool.cfg.Room = cfg.Room
		second := basePod()
		second.Name, second.UID = "second", "uid-second"
		a.want(basePod(), second)
		s, _ := a.pool.Status("uid-second")
		if s.Phase != corev1.PodFailed || s.Reason != "OutOfpods" || len(s.ContainerStatuses) != 0 {
			t.Errorf("a pod that does not fit is rejected with the reason, got %+v", s)
		}
		third := basePod()
		third.Name, third.UID = "third", "uid-third"
		a.want(third)
		if _, known := a.pool.Status("uid-third"); known {
			t.Error("a pod waits for room that is about to be given back")
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if s, _ := a.pool.Status("uid-third"); s.Phase != corev1.PodRunning {
			t.Errorf("then it starts, got %+v", s)
		}
	})
}

func TestTiersFollowPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		if n.tiers != 1 {
			t.Errorf("tiers count running pods, want 1, got %d", n.tiers)
		}
		a.want()
		if n.tiers != 0 {
			t.Errorf("and forget the others, want 0, got %d", n.tiers)
		}
	})
}
