package podstatus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func pod(name string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Status:     corev1.PodStatus{Phase: phase},
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBoard()
		b.Set(pod("a", corev1.PodPending))
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		done := make(chan error, 1)
		go func() {
			done <- b.Watch(ctx, func(c Change) error {
				got = append(got, c.Type+" "+c.Pod.Name+" "+string(c.Pod.Status.Phase))
				return nil
			})
		}()
		synctest.Wait()
		b.Set(pod("a", corev1.PodRunning))
		synctest.Wait()
		b.Set(pod("b", corev1.PodPending))
		b.Remove("uid-b") // seen by nobody in between
		b.Remove("uid-a")
		b.Remove("uid-a")
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []string{"ADDED a Pending", "MODIFIED a Running", "DELETED a Running"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("a watch shows each pod's latest state, and no pod it never showed (-want +got):\n%s", d)
		}
	})
}

func TestWatchEndsWhenSendFails(t *testing.T) {
	b := NewBoard()
	b.Set(pod("a", corev1.PodPending))
	broken := errors.New("client gone")
	if err := b.Watch(t.Context(), func(Change) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the sender's error", err)
	}
}

func TestListIsOrderedAndCopied(t *testing.T) {
	b := NewBoard()
	b.Set(pod("b", corev1.PodRunning))
	b.Set(pod("a", corev1.PodRunning))
	list := b.List()
	if len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" {
		t.Fatalf("got %v, want a, b", list)
	}
	list[0].Status.Phase = corev1.PodFailed
	if got := b.List()[0].Status.Phase; got != corev1.PodRunning {
		t.Errorf("a reader changed the board: phase is %s", got)
	}
}

func TestEvents(t *testing.T) {
	b := NewBoard()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := pod("a", corev1.PodRunning)
	for i := range 3 {
		b.Event(p, "", corev1.EventTypeWarning, "BackOff", "restarting", now.Add(time.Duration(i)*time.Second))
	}
	b.Event(p, "", corev1.EventTypeNormal, "Started", strings.Repeat("x", 2000), now)
	got := b.Events("default", "a")
	if len(got) != 2 {
		t.Fatalf("got %d events, want 2: a repeated event is counted", len(got))
	}
	if got[0].Count != 3 || !got[0].LastTimestamp.Time.Equal(now.Add(2*time.Second)) || !got[0].FirstTimestamp.Time.Equal(now) {
		t.Errorf("repeated event: %+v", got[0])
	}
	if len(got[1].Message) != maxEventMessage {
		t.Errorf("message of %d bytes, want it cut to %d", len(got[1].Message), maxEventMessage)
	}
	for i := range 2 * maxEventsPerPod {
		b.Event(p, "", corev1.EventTypeNormal, "Pulled", strings.Repeat("y", i), now)
	}
	if got := len(b.Events("default", "a")); got != maxEventsPerPod {
		t.Errorf("%d events kept, want %d", got, maxEventsPerPod)
	}
}

func TestChanged(t *testing.T) {
	b := NewBoard()
	for name, change := range map[string]func(){
		"Set":    func() { b.Set(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "a"}}) },
		"Remove": func() { b.Set(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "b"}}); b.Remove("b") },
	} {
		changed := b.Changed()
		select {
		case <-changed:
			t.Errorf("%s: want no change before there is one", name)
		default:
		}
		change()
		<-changed
	}
}
