package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// foreign is a lease of somebody else. Its time is an hour off, as their clock is.
func foreign(instance string) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "1"}}
	if instance != "" {
		l.Annotations = map[string]string{annotationInstance: instance}
	}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = new("n1"), new(int32(40))
	l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-time.Hour)}
	return l
}

func TestClaim(t *testing.T) {
	cases := map[string]struct {
		reason string
		lease  func() *coordinationv1.Lease
		renews bool // the other one is alive
		taken  bool
		after  time.Duration // at the most
	}{
		"Fresh":       {"nobody has the name", func() *coordinationv1.Lease { return nil }, false, false, 0},
		"OwnRestart":  {"a restart waits for nothing, however fresh its lease is", func() *coordinationv1.Lease { return foreign("me") }, false, false, 0},
		"Alive":       {"the second agent refuses, although the lease seems to have run out an hour ago", func() *coordinationv1.Lease { return foreign("other") }, true, true, 20 * time.Second},
		"LiveKubelet": {"a kubelet leaves no mark", func() *coordinationv1.Lease { return foreign("") }, true, true, 20 * time.Second},
		"Gone":        {"a name that nobody renews is taken over", func() *coordinationv1.Lease { return foreign("other") }, false, false, 50 * time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &leases{version: 1, lease: tc.lease()}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.renews {
					go func() {
						for ctx.Err() == nil {
							pause(ctx, 10*time.Second-time.Millisecond)
							l.change(func() {
								l.lease.Spec.RenewTime = &metav1.MicroTime{Time: l.lease.Spec.RenewTime.Add(10 * time.Second)}
								l.put(l.lease)
							})
						}
					}()
				}
				begin := time.Now()
				lease, err := newTestNode(l, "me").claim(ctx)
				if isTaken(err) != tc.taken || !tc.taken && (err != nil || lease.Annotations[annotationInstance] != "me") {
					t.Errorf("%s: %v, %v", tc.reason, lease, err)
				}
				if tc.taken && !strings.Contains(err.Error(), "--hostname-override") {
					t.Errorf("the error does not say what to do: %v", err)
				}
				if took := time.Since(begin); took > tc.after {
					t.Errorf("%s: took %s, want at most %s", tc.reason, took, tc.after)
				}
			})
		})
	}
}

func TestTwoAgentsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		results := make(chan error, 2)
		for _, instance := range []string{"a", "b"} {
			go func() {
				n := newTestNode(l, instance)
				lease, err := n.claim(ctx)
				if err == nil {
					err = n.renew(ctx, lease)
				}
				results <- err
			}()
		}
		if err := <-results; !isTaken(err) {
			t.Fatalf("the second ended with %v", err)
		}
		cancel()
		if err := <-results; err != nil {
			t.Fatalf("the first ended with %v", err)
		}
	})
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		n := newTestNode(l, "me")
		ctx, cancel := context.WithCancel(t.Context())
		lease, err := n.claim(ctx)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- n.renew(ctx, lease) }()
		time.Sleep(time.Minute + time.Second)
		l.change(func() {
			if l.updates != 7 {
				t.Errorf("renewed %d times in a minute, want each 10 s", l.updates)
			}
			l.lease = nil // garbage collected with its Node
		})
		time.Sleep(11 * time.Second)
		l.change(func() {
			if l.lease == nil || *l.lease.Spec.HolderIdentity != "n1" {
				t.Errorf("a lease that was deleted is not made again: %v", l.lease)
			}
			l.down = errors.New("away")
		})
		time.Sleep(time.Hour)
		l.change(func() { l.down, l.updates = nil, 0 })
		time.Sleep(11 * time.Second)
		l.change(func() {
			if l.updates == 0 {
				t.Error("not renewed when the API server was back")
			}
		})
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestInstance(t *testing.T) {
	dir := t.TempDir()
	first, err := Instance(dir, "uuid")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Instance(dir, "uuid")
	if err != nil || again != first {
		t.Errorf("after a restart: %s, %v, want %s", again, err, first)
	}
	if copied, err := Instance(dir, "other"); err != nil || copied == first {
		t.Errorf("a disk copied to another machine is the same instance: %s, %v", copied, err)
	}
	if other, err := Instance(t.TempDir(), "uuid"); err != nil || other == first {
		t.Errorf("another agent on this machine is the same instance: %s, %v", other, err)
	}
}
