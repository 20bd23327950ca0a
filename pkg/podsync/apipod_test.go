package podsync

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func apiPod() *corev1.Pod {
	pod := basePod()
	pod.Annotations[configSource] = sourceAPI
	return pod
}

func TestDeletedPodIsReleasedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode().run(t, t.TempDir())
		defer a.end()
		a.want(apiPod())
		a.log()
		deleted := apiPod()
		deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds = new(metav1.Now()), new(int64(7))
		a.want(deleted)
		check(t, "its object may go when nothing is held any more, with a last phase", []string{
			"stop main 7s", "stop-sandbox web", "remove-volumes uid-web", "remove-cgroup uid-web", "release web Failed",
		}, a.log())
		a.want()
		check(t, "and its traces go with the object", []string{"remove main", "remove-sandbox uid-web"}, a.log())
	})
}

func TestWhatTheAPISaysIsTheBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode().run(t, t.TempDir())
		defer a.end()
		began := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
		again := apiPod()
		again.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &began, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "main", RestartCount: 4, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		}}
		over := apiPod()
		over.Name, over.UID, over.Status.Phase = "over", "uid-over", corev1.PodSucceeded
		a.want(again, over)
		s, _ := a.pool.Status("uid-web")
		if !s.StartTime.Equal(&began) || s.ContainerStatuses[0].RestartCount != 5 {
			t.Errorf("a machine that lost its runtime counts on: got %v, %d restarts", s.StartTime, s.ContainerStatuses[0].RestartCount)
		}
		if s, _ := a.pool.Status("uid-over"); s.Phase != corev1.PodSucceeded || slices.Contains(a.log(), "sandbox over") {
			t.Errorf("a pod that has ended is not started again, got %s", s.Phase)
		}
	})
}

func TestStandIn(t *testing.T) {
	d := NewDesired("file", "api")
	d.StandIn("api", []*corev1.Pod{apiPod()})
	if got := d.Pods(); len(got) != 1 || d.Synced() {
		t.Errorf("a silent source is stood in for and stays silent, got %d pods", len(got))
	}
	d.Set("file", nil)
	d.Set("api", nil)
	if got := d.Pods(); len(got) != 0 || !d.Synced() {
		t.Errorf("what it reports counts, got %d pods", len(got))
	}
	d.StandIn("api", []*corev1.Pod{apiPod()})
	if got := d.Pods(); len(got) != 0 {
		t.Error("nobody stands in for a source that has reported")
	}
}
