package server

import (
	"fmt"
	"net/http"
)

// What goes on for long is bounded: each takes descriptors and goroutines.
const (
	maxSessions = 256 // exec and attach
	maxReaders  = 256 // of logs, which may follow
)

// quota is how many of one kind may go on at the same time.
type quota chan struct{}

// wrap refuses requests above the quota.
func (q quota) wrap(what string, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		select {
		case q <- struct{}{}:
		default:
			w.Header().Set("Retry-After", "1")
			return &Error{Code: http.StatusTooManyRequests, Message: fmt.Sprintf("%d %s go on already; try again when some have ended", cap(q), what)}
		}
		defer func() { <-q }()
		return h(w, r)
	}
}
