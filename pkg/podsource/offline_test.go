package podsource

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOffline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pods.json")
	log := slog.New(slog.DiscardHandler)
	if pods, err := NewOffline(path, log).Load(); err != nil || len(pods) != 0 {
		t.Fatalf("a machine that is new has no pods: %v %v", pods, err)
	}
	synctest.Test(t, func(t *testing.T) {
		o := NewOffline(path, log)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		o.Set([]*corev1.Pod{
			{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}},
			{ObjectMeta: metav1.ObjectMeta{Name: "b", UID: "2"}, Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}},
		})
		time.Sleep(2 * offlineDelay)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	got, err := NewOffline(path, log).Load()
	want := []*corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "b", UID: "2"}, Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("the next agent knows the pods and which have ended: %v (-want +got):\n%s", err, d)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewOffline(path, log).Load(); err == nil {
		t.Error("a broken file is told of")
	}
}
