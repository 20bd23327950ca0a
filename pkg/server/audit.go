package server

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// call is one request of the network while it is served.
type call struct {
	caller  *caller
	begin   time.Time
	uid     types.UID
	command []string
	bytes   atomic.Int64 // in both directions
}

type callKey struct{}

func withCall(r *http.Request, c *call) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callKey{}, c))
}

// callOf is never nil: one that nobody reads stands for a request of the socket.
func callOf(r *http.Request) *call {
	if c, ok := r.Context().Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// holder is the caller to count, or empty for those who are not: the local
// client, and the API server and administrators with certificates.
func (c *call) holder() string {
	if c.caller == nil || c.caller.certificate {
		return ""
	}
	return c.caller.Username
}

// audit says who did what. Of a command only its name is told: what follows may
// be secret.
func (c *call) audit(log *slog.Logger, r *http.Request, verb, decision string) {
	args := []any{
		"user", c.caller.Username, "groups", c.caller.Groups, "source", r.RemoteAddr, "verb", verb, "decision", decision,
		"namespace", r.PathValue("namespace"), "pod", r.PathValue("pod"), "uid", c.uid,
	}
	if container := r.PathValue("container"); container != "" {
		args = append(args, "container", container)
	}
	if len(c.command) > 0 {
		args = append(args, "command", c.command[0], "words", len(c.command))
	}
	log.Info("audit", append(args, "bytes", c.bytes.Load(), "took", time.Since(c.begin).Round(time.Millisecond))...)
}
