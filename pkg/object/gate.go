package object

import (
	"context"
	"sync"
	"time"
)

// longestTurn is the longest pause between two tries to reach the API server.
const longestTurn = 5 * time.Second

// gate slows down those who find the API server away: whatever their number, they
// try one after the other, and when one has reached it all follow at once.
type gate struct {
	turn chan struct{} // capacity 1

	mu    sync.Mutex    // guards all below
	back  chan struct{} // closed when the API server is back; nil when it is not away
	tries int           // since it is away
}

func newGate() *gate { return &gate{turn: make(chan struct{}, 1)} }

// pass returns when it is time to try.
func (g *gate) pass(ctx context.Context) {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return
	}
	g.mu.Lock()
	g.tries++
	back, tries := g.back, g.tries
	g.mu.Unlock()
	if back == nil {
		return
	}
	select {
	case <-back:
	case <-ctx.Done():
	case <-time.After(min(delay(tries), longestTurn)):
	}
}

// shut says that the API server was not reached.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.back == nil {
		g.back, g.tries = make(chan struct{}), 0
	}
}

// opened says that the API server has answered, and returns whether that is news.
func (g *gate) opened() (news bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.back == nil {
		return false
	}
	close(g.back)
	g.back = nil
	return true
}
