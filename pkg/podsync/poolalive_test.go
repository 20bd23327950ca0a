package podsync

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// stuckRuntime answers nobody once it is stuck.
type stuckRuntime struct {
	Runtime
	stuck atomic.Pointer[chan struct{}] // nil until then
}

func (s *stuckRuntime) Pods() []cri.Pod {
	if stuck := s.stuck.Load(); stuck != nil {
		<-*stuck
	}
	return s.Runtime.Pods()
}

func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := newNode().config(t, t.TempDir())
		var beats atomic.Int32
		runtime := &stuckRuntime{Runtime: cfg.Runtime}
		cfg.Runtime, cfg.Alive, cfg.AliveEvery = runtime, func() { beats.Add(1) }, 30*time.Second
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- NewPool(cfg).Run(ctx) }()

		time.Sleep(time.Hour + time.Second)
		if got := beats.Load(); got < 120 {
			t.Errorf("a pool that has nothing to do said %d times in an hour that it is alive, want every 30s", got)
		}
		stuck := make(chan struct{})
		runtime.stuck.Store(&stuck)
		beats.Store(0)
		time.Sleep(time.Hour)
		if got := beats.Load(); got != 0 {
			t.Errorf("a pool that does not get around to its pods said %d times that it is alive", got)
		}
		close(stuck)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
