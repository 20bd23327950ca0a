package podsync

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestStatusOfForgottenEnd(t *testing.T) {
	ended := []corev1.ContainerStatus{{Name: "main", RestartCount: 2, State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: 7, Reason: "Error"},
	}}}
	old := corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "it used too much", ContainerStatuses: ended}
	pod := basePod()
	pod.Status = old
	h := &Have{VolumesGone: true, CgroupGone: true}
	w := Want{Pod: pod, End: &End{Phase: corev1.PodFailed}}
	got := Status(w, *h, Next(w, *h, now), old, now)
	want := []any{old.Phase, old.Reason, old.Message, ended}
	if d := cmp.Diff(want, []any{got.Phase, got.Reason, got.Message, got.ContainerStatuses}); d != "" {
		t.Errorf("what only the source remembers of a pod that has ended is kept (-want +got):\n%s", d)
	}
}

func TestEvictions(t *testing.T) {
	cases := map[string]struct {
		reason     string
		eviction   Eviction
		grace      string
		disruption string
	}{
		"OwnFault": {reason: "a pod that used too much failed", eviction: Eviction{Reason: "Evicted", Message: "too much"}, grace: "stop main 30s"},
		"Shutdown": {
			reason:   "one that the node ends did not, and stops within the node's time",
			eviction: Eviction{Reason: "Terminated", Message: "shutdown", Disruption: true, Grace: 10 * time.Second},
			grace:    "stop main 10s", disruption: "TerminationByKubelet shutdown",
		},
		"Patient": {
			reason:   "which is not longer than the pod's own",
			eviction: Eviction{Reason: "Terminated", Message: "shutdown", Disruption: true, Grace: time.Hour},
			grace:    "stop main 30s", disruption: "TerminationByKubelet shutdown",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newNode().run(t, t.TempDir())
				defer a.end()
				a.want(basePod())
				a.log()
				a.desired.EvictWith("uid-web", tc.eviction)
				synctest.Wait()
				if got := a.log(); len(got) == 0 || got[0] != tc.grace {
					t.Errorf("%s: want %q first, got %q", tc.reason, tc.grace, got)
				}
				s, _ := a.pool.Status("uid-web")
				disruption := ""
				if c := findCondition(s.Conditions, corev1.DisruptionTarget); c != nil {
					disruption = c.Reason + " " + c.Message
				}
				if s.Phase != corev1.PodFailed || s.Reason != tc.eviction.Reason || disruption != tc.disruption || a.container("main").State != cri.Exited {
					t.Errorf("%s: got %s %s, disruption %q", tc.reason, s.Phase, s.Reason, disruption)
				}
			})
		})
	}
}
