package podsync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// next is what a case of TestNext expects. Waiting holds reasons only.
type next struct {
	Phase   Phase
	End     *End
	Steps   []Step
	Waiting map[string]string
	Wake    time.Duration // from now; 0 means that nothing is scheduled
	Done    bool
}

type nextCase struct {
	reason string
	pod    func(*corev1.Pod)
	have   func(*Have)
	given  func(*Want)
	want   next
}

func runNext(t *testing.T, cases map[string]nextCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.pod != nil {
				tc.pod(pod)
			}
			h := baseHave(pod)
			if tc.have != nil {
				tc.have(h)
			}
			w := Want{Pod: pod, BackOff: BackOff{Initial: 10 * time.Second, Max: 5 * time.Minute}}
			if tc.given != nil {
				tc.given(&w)
			}
			plan := Next(w, *h, now)
			got := next{Phase: plan.Phase, End: plan.End, Steps: plan.Steps, Done: plan.Done}
			if !plan.Wake.IsZero() {
				got.Wake = plan.Wake.Sub(now)
			}
			for c, s := range plan.Waiting {
				if got.Waiting == nil {
					got.Waiting = map[string]string{}
				}
				got.Waiting[c] = s.Reason
			}
			if d := cmp.Diff(tc.want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(StopContainer{}, "Why"),
				cmpopts.IgnoreFields(End{}, "At", "Grace", "Message", "Why")); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestNextStart(t *testing.T) {
	runNext(t, map[string]nextCase{
		"Healthy": {
			reason: "a pod that is as it should be is left alone",
			have:   func(h *Have) { h.running("main", 0) },
		},
		"Fresh": {
			reason: "cgroup, volumes and images are prepared at once; the sandbox follows the cgroup",
			have:   func(h *Have) { h.Pod, h.Cgroup, h.Volumes, h.Images = cri.Pod{}, false, false, nil },
			want:   next{Steps: []Step{EnsureCgroup{}, SetupVolumes{}, PullImage{Container: "main"}}},
		},
		"SandboxAfterCgroup": {
			reason: "volumes need not be ready for the network to be attached",
			have:   func(h *Have) { h.Pod, h.Volumes = cri.Pod{}, false },
			want:   next{Steps: []Step{SetupVolumes{}, StartSandbox{}}},
		},
		"AllMainsAtOnce": {
			reason: "main containers have no order among themselves",
			pod:    func(p *corev1.Pod) { withContainers(p, "second") },
			want:   next{Steps: []Step{start("main", 0), start("second", 0)}},
		},
		"OneImageMissing": {
			reason: "a container whose image is there does not wait for its sibling's",
			pod:    func(p *corev1.Pod) { withContainers(p, "second") },
			have:   func(h *Have) { delete(h.Images, "main") },
			want:   next{Steps: []Step{PullImage{Container: "main"}, start("second", 0)}},
		},
		"AdoptedPreparesAgain": {
			reason: "a new agent does not know that cgroup and volumes are there; it makes sure before it starts anything",
			have: func(h *Have) {
				h.Cgroup, h.Volumes = false, false
				h.exited("main", 0, 1)
			},
			want: next{Steps: []Step{EnsureCgroup{}, SetupVolumes{}}},
		},
		"AdoptedHealthy": {
			reason: "an adopted pod that runs needs nothing prepared",
			have: func(h *Have) {
				h.Cgroup, h.Volumes, h.Images = false, false, map[string]int{}
				h.running("main", 0)
			},
		},
		"CreatedLeftover": {
			reason: "a container that an earlier agent created and never started is made anew with the same number",
			have:   func(h *Have) { h.add(attempt("main", 0)) },
			want:   next{Steps: []Step{RemoveContainer{ID: "main-0"}}},
		},
		"BeingCreated": {
			reason: "a container which is just being started is not a leftover",
			have: func(h *Have) {
				h.add(attempt("main", 0))
				h.Busy["container main"] = "start"
			},
		},
		"PullHeld": {
			reason: "a pull that failed is tried again only after its delay",
			have: func(h *Have) {
				delete(h.Images, "main")
				h.Held["pull image of main"] = Held{Since: now.Add(-3 * time.Second), Until: now.Add(7 * time.Second), Reason: "ErrImagePull"}
			},
			want: next{Waiting: map[string]string{"main": "ImagePullBackOff"}, Wake: 7 * time.Second},
		},
		"PullJustFailed": {
			reason: "the error itself is shown first",
			have: func(h *Have) {
				delete(h.Images, "main")
				h.Held["pull image of main"] = Held{Since: now, Until: now.Add(10 * time.Second), Reason: "ErrImagePull"}
			},
			want: next{Waiting: map[string]string{"main": "ErrImagePull"}, Wake: 2 * time.Second},
		},
		"NeverPull": {
			reason: "an image that may not be pulled is not being backed off from",
			have: func(h *Have) {
				delete(h.Images, "main")
				h.Held["pull image of main"] = Held{Since: now.Add(-5 * time.Second), Until: now.Add(5 * time.Second), Reason: "ErrImageNeverPull"}
			},
			want: next{Waiting: map[string]string{"main": "ErrImageNeverPull"}, Wake: 5 * time.Second},
		},
		"PullProgress": {
			reason: "a pull in progress shows in the status",
			have: func(h *Have) {
				delete(h.Images, "main")
				h.Pulling["main"] = "pulling image"
			},
			want: next{Steps: []Step{PullImage{Container: "main"}}, Waiting: map[string]string{"main": "ContainerCreating"}},
		},
		"ConfigError": {
			reason: "a missing config map keeps its container waiting, with the reason",
			have: func(h *Have) {
				h.Held["start container main"] = Held{Since: now, Until: now.Add(time.Second), Reason: "CreateContainerConfigError"}
			},
			want: next{Waiting: map[string]string{"main": "CreateContainerConfigError"}, Wake: time.Second},
		},
		"StaleVolumes": {
			reason: "changed objects reach the volumes of a running pod",
			have: func(h *Have) {
				h.running("main", 0)
				h.Stale = true
			},
			want: next{Steps: []Step{UpdateVolumes{}}},
		},
		"OldAttempts": {
			reason: "the one that runs and the one before it are kept, older ones are not",
			have: func(h *Have) {
				h.exited("main", 0, 1)
				h.exited("main", 1, 1)
				h.running("main", 2)
			},
			want: next{Steps: []Step{RemoveContainer{ID: "main-0"}}},
		},
	})
}
