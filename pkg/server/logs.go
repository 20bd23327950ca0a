package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

func (s *service) logs(w http.ResponseWriter, r *http.Request) error {
	if s.Logs == nil {
		return errNotServed
	}
	q, err := parseLogQuery(r.URL.Query())
	if err != nil {
		return err
	}
	q.Namespace, q.Pod, q.Container = r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	c := callOf(r)
	release, err := s.readers.take(c.holder(), q.Namespace+"/"+q.Pod+"/"+q.Container)
	if err != nil {
		return err
	}
	defer release()
	if err := s.find(r, Target{Namespace: q.Namespace, Pod: q.Pod, Container: q.Container}); err != nil {
		return err
	}
	body := &flushWriter{w: w, flush: http.NewResponseController(w), idle: s.idle, bytes: &c.bytes}
	var out io.Writer = body
	if q.LimitBytes > 0 {
		out = &limitWriter{w: out, left: q.LimitBytes}
	}
	stdout, stderr := out, out
	if q.NoStdout {
		stdout = nil
	}
	if q.NoStderr {
		stderr = nil
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if q.Follow { // the client is to know that it is there, also if nothing is ever printed
		w.WriteHeader(http.StatusOK)
		_ = body.flush.Flush() // the first write tells
	}
	err = s.Logs(r.Context(), q, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, errLimit):
		return nil
	case (body.wrote || q.Follow) && r.Context().Err() == nil:
		s.log.Warn("log request failed half-way", "pod", q.Pod, "container", q.Container, "err", err)
		panic(http.ErrAbortHandler) // the message must not pass for a line of the log
	}
	return err
}

// parseLogQuery reads the parameters of the kubelet's containerLogs route.
func parseLogQuery(v url.Values) (LogQuery, error) {
	q := LogQuery{Tail: -1}
	for name, dst := range map[string]*bool{"follow": &q.Follow, "previous": &q.Previous, "timestamps": &q.Timestamps} {
		if s := v.Get(name); s != "" {
			b, err := strconv.ParseBool(s)
			if err != nil {
				return q, BadRequest(fmt.Sprintf("%s: %q is not a boolean", name, s))
			}
			*dst = b
		}
	}
	for name, dst := range map[string]*int64{"tail": &q.Tail, "tailLines": &q.Tail, "limitBytes": &q.LimitBytes} {
		if s := v.Get(name); s != "" && s != "all" && (name != "tailLines" || !v.Has("tail")) {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				return q, BadRequest(fmt.Sprintf("%s: %q is not a number of at least 0", name, s))
			}
			*dst = n
		}
	}
	if s := v.Get("sinceSeconds"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n <= 0 {
			return q, BadRequest(fmt.Sprintf("sinceSeconds: %q is not a number above 0", s))
		}
		q.Since = time.Now().Add(-time.Duration(n) * time.Second)
	}
	if s := v.Get("sinceTime"); s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return q, BadRequest(fmt.Sprintf("sinceTime: %q is not an RFC 3339 time", s))
		}
		q.Since = t
	}
	switch s := v.Get("stream"); s {
	case "", "All":
	case "Stdout":
		q.NoStderr = true
	case "Stderr":
		q.NoStdout = true
	default:
		return q, BadRequest(fmt.Sprintf("stream: %q is not one of All, Stdout, Stderr", s))
	}
	return q, nil
}

// flushWriter sends every write at once, so that a followed log is live. A client
// that takes nothing for as long as a stream may be idle has gone away.
type flushWriter struct {
	w     io.Writer
	flush *http.ResponseController
	idle  time.Duration
	bytes *atomic.Int64
	wrote bool
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.wrote = true
	_ = f.flush.SetWriteDeadline(time.Now().Add(f.idle)) // without one a write takes as long as it takes
	n, err := f.w.Write(p)
	f.bytes.Add(int64(n))
	if err != nil {
		return n, err
	}
	return n, f.flush.Flush()
}

var errLimit = errors.New("byte limit reached")

// limitWriter lets the first bytes pass and then fails with errLimit.
type limitWriter struct {
	w    io.Writer
	left int64
}

func (l *limitWriter) Write(p []byte) (int, error) {
	cut := int64(len(p)) > l.left
	if cut {
		p = p[:l.left]
	}
	n, err := l.w.Write(p)
	l.left -= int64(n)
	if err == nil && cut {
		err = errLimit
	}
	return n, err
}
