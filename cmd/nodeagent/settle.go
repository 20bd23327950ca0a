package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// settleAfter is how long no pod may have changed until a burst of work is over.
const settleAfter = 2 * time.Second

// shrinks is how many collections come before the last: each halves the stacks
// that work has made grow.
const shrinks = 3

// settle gives memory back to the machine after a burst of work. The heap grows
// with all that starts at once, and an agent that sleeps allocates nothing, so
// that for minutes nothing else would make it collect.
func (a *agent) settle(ctx context.Context) error {
	changed := a.board.Changed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		for busy := true; busy; {
			changed = a.board.Changed()
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-time.After(settleAfter):
				busy = false
			}
		}
		for range shrinks {
			runtime.GC()
		}
		debug.FreeOSMemory()
	}
}
