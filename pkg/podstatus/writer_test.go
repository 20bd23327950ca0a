package podstatus

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	corefake "k8s.io/client-go/kubernetes/typed/core/v1/fake"
	clienttesting "k8s.io/client-go/testing"
)

// server notes the requests for pods, and fails those that it is told to.
type server struct {
	corefake.FakeCoreV1
	mu      sync.Mutex
	asked   []string
	patches []corev1.Pod
	fail    error
}

func newServer() *server {
	s := &server{}
	s.FakeCoreV1.Fake = &clienttesting.Fake{}
	s.AddReactor("*", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch a := a.(type) {
		case clienttesting.PatchActionImpl:
			var p corev1.Pod
			if err := json.Unmarshal(a.Patch, &p); err != nil {
				return true, nil, err
			}
			s.asked = append(s.asked, "patch "+a.Subresource+" "+a.Name+" "+string(p.Status.Phase))
			s.patches = append(s.patches, p)
			return true, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: p.UID, ResourceVersion: "9"}, Status: p.Status}, s.fail
		case clienttesting.DeleteActionImpl:
			o := a.DeleteOptions
			if *o.GracePeriodSeconds == 0 && o.Preconditions != nil {
				s.asked = append(s.asked, "delete "+a.Name+" "+string(*o.Preconditions.UID))
			}
		case clienttesting.CreateActionImpl:
			s.asked = append(s.asked, "create "+a.Object.(*corev1.Pod).Name)
		}
		return true, &corev1.Pod{}, s.fail
	})
	return s
}

func (s *server) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *server) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func object(name string, phase corev1.PodPhase) *corev1.Pod {
	p := pod(name, phase)
	p.ResourceVersion = "5"
	p.Annotations = map[string]string{annotationSource: sourceAPI}
	return p
}

// write runs f beside a Writer.
func write(t *testing.T, f func(w *Writer, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := NewWriter(s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		f(w, s)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestWriterSendsTheNewestOnce(t *testing.T) {
	write(t, func(w *Writer, s *server) {
		w.Set(object("a", corev1.PodPending))
		synctest.Wait()
		if got := s.log(); len(got) != 0 {
			t.Errorf("a pod without an object waits for it, got %q", got)
		}
		w.Set(object("a", corev1.PodRunning))
		w.Observe([]*corev1.Pod{object("a", corev1.PodPending)}, nil)
		synctest.Wait()
		if d := cmp.Diff([]string{"patch status a Running"}, s.log()); d != "" {
			t.Errorf("only the newest is sent (-want +got):\n%s", d)
		}
		if uid := s.patches[0].UID; uid != "uid-a" {
			t.Errorf("the patch is for that object alone, got UID %q", uid)
		}
		w.Set(object("a", corev1.PodRunning))
		w.Observe([]*corev1.Pod{object("a", corev1.PodPending)}, nil) // older than the answer
		synctest.Wait()
		if got := s.log(); len(got) != 0 {
			t.Errorf("what is there already is not sent, got %q", got)
		}
		overwritten := object("a", corev1.PodPending)
		overwritten.ResourceVersion = "10"
		w.Observe([]*corev1.Pod{overwritten}, nil)
		synctest.Wait()
		if d := cmp.Diff([]string{"patch status a Running"}, s.log()); d != "" {
			t.Errorf("what somebody has overwritten is sent again (-want +got):\n%s", d)
		}
	})
}

func TestWriterDeletesAfterTheLastStatus(t *testing.T) {
	write(t, func(w *Writer, s *server) {
		w.Observe([]*corev1.Pod{object("a", corev1.PodRunning)}, nil)
		last := object("a", corev1.PodSucceeded)
		w.Set(last)
		w.Release(last)
		synctest.Wait()
		if d := cmp.Diff([]string{"patch status a Succeeded", "delete a uid-a"}, s.log()); d != "" {
			t.Errorf("the last status comes before the end (-want +got):\n%s", d)
		}
		held := object("a", corev1.PodSucceeded)
		held.ResourceVersion, held.Finalizers = "11", []string{"example.com/x"}
		w.Observe([]*corev1.Pod{held}, nil)
		synctest.Wait()
		if got := s.log(); len(got) != 0 {
			t.Errorf("an object that a finalizer holds is asked to go once, got %q", got)
		}
	})
}

func TestWriterSlowsDownWhenRefused(t *testing.T) {
	gone := schema.GroupResource{Resource: "pods"}
	cases := map[string]struct {
		reason string
		err    error
		want   int // requests in 100 s
	}{
		"Conflict": {"a conflict may pass", apierrors.NewConflict(gone, "a", nil), 8},
		"Invalid":  {"a status that is refused may be accepted by another server", apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "a", nil), 8},
		"NotFound": {"what is gone is not asked for again", apierrors.NewNotFound(gone, "a"), 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			write(t, func(w *Writer, s *server) {
				s.failWith(tc.err)
				w.Observe([]*corev1.Pod{object("a", corev1.PodPending)}, nil)
				w.Set(object("a", corev1.PodRunning))
				time.Sleep(100 * time.Second)
				synctest.Wait()
				if got := s.log(); len(got) < 1 || len(got) > tc.want || tc.want > 1 && len(got) < 5 {
					t.Errorf("%s: want %d requests, got %d", tc.reason, tc.want, len(got))
				}
				if tc.want == 1 {
					return
				}
				s.failWith(nil)
				time.Sleep(lastRetry)
				synctest.Wait()
				if got := s.log(); len(got) != 1 {
					t.Errorf("%s: once it is accepted it is sent no more, got %q", tc.reason, got)
				}
			})
		})
	}
}

func TestMerge(t *testing.T) {
	gate := corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	cases := map[string]struct {
		reason             string
		ours, theirs, want corev1.PodStatus
	}{
		"TerminalStays": {
			"a pod that has ended never runs again",
			corev1.PodStatus{Phase: corev1.PodRunning},
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "m"},
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "m"},
		},
		"OthersConditionsStay": {
			"a condition belongs to who sets it",
			corev1.PodStatus{Conditions: []corev1.PodCondition{ready, {Type: gate.Type, Status: corev1.ConditionFalse}}},
			corev1.PodStatus{Conditions: []corev1.PodCondition{gate}},
			corev1.PodStatus{Conditions: []corev1.PodCondition{ready, gate}},
		},
		"OursGo": {
			"what the node has set it can take away",
			corev1.PodStatus{Conditions: []corev1.PodCondition{ready}},
			corev1.PodStatus{Conditions: []corev1.PodCondition{ready, {Type: corev1.PodResizePending}}},
			corev1.PodStatus{Conditions: []corev1.PodCondition{ready}},
		},
		"NominatedNodeStays": {
			"the scheduler's own",
			corev1.PodStatus{}, corev1.PodStatus{NominatedNodeName: "n"}, corev1.PodStatus{NominatedNodeName: "n"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, merge(tc.ours, tc.theirs)); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func static(name, hash string) *corev1.Pod {
	p := pod(name, corev1.PodRunning)
	p.Annotations = map[string]string{annotationSource: "file", annotationHash: hash}
	p.Spec.NodeName = "node"
	return p
}

func TestMirrorSteps(t *testing.T) {
	mirror := func(hash string) *corev1.Pod { return mirrorOf(static("a", hash), "node-uid") }
	ending := mirror("1")
	ending.DeletionTimestamp = new(metav1.Now())
	type pods = []*corev1.Pod
	cases := map[string]struct {
		reason                  string
		static, living, mirrors pods
		want                    string
	}{
		"Missing":       {"each static pod has one", pods{static("a", "1")}, nil, nil, "create 1"},
		"There":         {"and not two", pods{static("a", "1")}, nil, pods{mirror("1")}, ""},
		"BeingDeleted":  {"nobody else will finish it", pods{static("a", "1")}, nil, pods{ending}, "remove 1"},
		"Outdated":      {"another manifest is another mirror", pods{static("a", "2")}, nil, pods{mirror("1")}, "remove 1"},
		"StillStopping": {"the mirror shows what is there", pods{static("a", "2")}, pods{static("a", "1")}, pods{mirror("1")}, ""},
		"ManifestGone":  {"until it is gone", nil, pods{static("a", "1")}, pods{mirror("1")}, ""},
		"Gone":          {"and no longer", nil, nil, pods{mirror("1")}, "remove 1"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			for _, s := range mirrorSteps(tc.static, tc.living, tc.mirrors) {
				if s.remove != nil {
					got += "remove " + s.remove.Annotations[annotationMirror]
				} else {
					got += "create " + s.create.Annotations[annotationHash]
				}
			}
			if got != tc.want {
				t.Errorf("%s: want %q, got %q", tc.reason, tc.want, got)
			}
		})
	}
}

func TestMirrorsWaitForBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		var events []string
		m := NewMirrors(MirrorsConfig{
			Client:  s,
			NodeUID: func(context.Context) (types.UID, error) { return "node-uid", nil },
			Living:  func() []*corev1.Pod { return nil },
			Event:   func(_ *corev1.Pod, reason, _ string) { events = append(events, reason) },
			Log:     slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		m.Observe([]*corev1.Pod{mirrorOf(static("old", "1"), "node-uid")})
		synctest.Wait()
		if got := s.log(); len(got) != 0 {
			t.Errorf("no mirror goes before the manifests are known, got %q", got)
		}
		refers := static("refers", "3")
		refers.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}}
		m.SetStatic([]*corev1.Pod{refers})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if d := cmp.Diff([]string{"delete old "}, s.log()); d != "" {
			t.Errorf("a pod that refers to objects is not sent (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]string{ReasonMirror}, events); d != "" {
			t.Errorf("and its event says so once (-want +got):\n%s", d)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
