package server

import (
	"fmt"
	"net/http"
	"sync"
)

// What goes on for long is bounded: each takes descriptors and goroutines.
const (
	maxSessions          = 256 // exec, attach and port-forward
	maxSessionsOfCaller  = 64
	maxSessionsOfPod     = 32
	maxReaders           = 256 // of logs, which may follow
	maxReadersOfOne      = 16
	maxReadersOfCaller   = 64
	maxForwardsOfSession = 100 // connections at the same time through one port-forward
)

// places is how many of one kind may go on at the same time: in all, for one
// caller and on one object. A limit of 0 is none.
type places struct {
	what                        string
	total, perCaller, perObject int

	mu      sync.Mutex // guards all below
	taken   int
	callers map[string]int
	objects map[string]int
}

// take gives a place, to be released once. A caller without a name is only
// counted in all.
func (p *places) take(caller, object string) (release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.total > 0 && p.taken >= p.total:
		return nil, busy(fmt.Sprintf("%d %s go on already; try again when some have ended", p.taken, p.what))
	case p.perCaller > 0 && caller != "" && p.callers[caller] >= p.perCaller:
		return nil, busy(fmt.Sprintf("%d %s of %s go on already; try again when some have ended", p.callers[caller], p.what, caller))
	case p.perObject > 0 && p.objects[object] >= p.perObject:
		return nil, busy(fmt.Sprintf("%d %s of %s go on already; try again when some have ended", p.objects[object], p.what, object))
	}
	if p.callers == nil {
		p.callers, p.objects = map[string]int{}, map[string]int{}
	}
	p.taken++
	p.callers[caller]++
	p.objects[object]++
	return sync.OnceFunc(func() { p.release(caller, object) }), nil
}

func (p *places) release(caller, object string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	less(p.callers, caller)
	less(p.objects, object)
}

// less counts down and forgets what has come to nothing.
func less[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// busy is the error for a request that could be served later.
func busy(message string) error {
	return &Error{Code: http.StatusTooManyRequests, Message: message}
}
