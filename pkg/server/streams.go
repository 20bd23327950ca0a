package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	streamIdleTimeout     = 4 * time.Hour
	streamCreationTimeout = 30 * time.Second
	// exitKilled is how a shell reports a command that was killed.
	exitKilled = 128 + 9
)

// supportedProtocols are the stream protocols of the kubelet, newest first.
func supportedProtocols() []string {
	return []string{"v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"}
}

// TerminalSize is the size of a client's terminal in characters.
type TerminalSize = remotecommand.TerminalSize

// Session is one exec or attach: where it goes and the streams that carry it. A
// stream the client did not ask for is nil.
type Session struct {
	Namespace, Pod, Container string
	Command                   []string // exec only
	Stdin                     io.Reader
	Stdout, Stderr            io.Writer
	TTY                       bool
	Resize                    <-chan TerminalSize
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	if s.Funcs.Exec == nil {
		return errNotServed
	}
	opts, err := streamOptions(r)
	if err != nil {
		return err
	}
	command := r.URL.Query()["command"]
	if len(command) == 0 {
		return BadRequest("exec needs a command")
	}
	target := executor{session: s.Funcs.Exec, namespace: r.PathValue("namespace")}
	w, r = watchClient(w, r)
	remotecommand.ServeExec(w, r, target, r.PathValue("pod"), "", r.PathValue("container"), command, opts,
		streamIdleTimeout, streamCreationTimeout, supportedProtocols())
	return nil
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	if s.Funcs.Attach == nil {
		return errNotServed
	}
	opts, err := streamOptions(r)
	if err != nil {
		return err
	}
	target := executor{session: s.Funcs.Attach, namespace: r.PathValue("namespace")}
	w, r = watchClient(w, r)
	remotecommand.ServeAttach(w, r, target, r.PathValue("pod"), "", r.PathValue("container"), opts,
		streamIdleTimeout, streamCreationTimeout, supportedProtocols())
	return nil
}

// streamOptions reads which streams are wanted, from the kubelet's parameters
// (input=1) as well as from the API server's (stdin=true).
func streamOptions(r *http.Request) (*remotecommand.Options, error) {
	q := r.URL.Query()
	on := func(names ...string) bool {
		for _, n := range names {
			if v, err := strconv.ParseBool(q.Get(n)); err == nil && v {
				return true
			}
		}
		return false
	}
	opts := &remotecommand.Options{
		Stdin:  on("input", "stdin"),
		Stdout: on("output", "stdout"),
		Stderr: on("error", "stderr"),
		TTY:    on("tty"),
	}
	if opts.TTY {
		opts.Stderr = false // a terminal has one output stream
	}
	if !opts.Stdin && !opts.Stdout && !opts.Stderr {
		return nil, BadRequest("at least one of stdin, stdout and stderr must be asked for")
	}
	return opts, nil
}

// executor hands the streams that the library has set up to a session func.
type executor struct {
	session   func(context.Context, Session) error
	namespace string
}

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, pod, _, container string, cmd []string,
	in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	err := e.session(ctx, Session{Namespace: e.namespace, Pod: pod, Container: container, Command: cmd,
		Stdin: in, Stdout: out, Stderr: errOut, TTY: tty, Resize: resize})
	if err != nil && ctx.Err() != nil { // no failure of ours: the client or the agent has ended, and so the command
		return utilexec.CodeExitError{Err: err, Code: exitKilled}
	}
	return err
}

// AttachContainer implements remotecommand.Attacher.
func (e executor) AttachContainer(ctx context.Context, pod, _, container string,
	in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	err := e.session(ctx, Session{Namespace: e.namespace, Pod: pod, Container: container,
		Stdin: in, Stdout: out, Stderr: errOut, TTY: tty, Resize: resize})
	if ctx.Err() != nil { // the client or the agent has ended; the container goes on
		return nil
	}
	return err
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	if s.Funcs.Logs == nil {
		return errNotServed
	}
	q, err := parseLogQuery(r.URL.Query())
	if err != nil {
		return err
	}
	q.Namespace, q.Pod, q.Container = r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	body := &flushWriter{w: w, flush: http.NewResponseController(w)}
	var out io.Writer = body
	if q.LimitBytes > 0 {
		out = &limitWriter{w: out, left: q.LimitBytes}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	err = s.Funcs.Logs(r.Context(), q, out, out)
	switch {
	case err == nil, errors.Is(err, errLimit):
		return nil
	case body.wrote && r.Context().Err() == nil:
		s.Log.Warn("log request failed half-way", "pod", q.Pod, "container", q.Container, "err", err)
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
	for name, dst := range map[string]*int64{"tailLines": &q.Tail, "limitBytes": &q.LimitBytes} {
		if s := v.Get(name); s != "" && s != "all" {
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
	return q, nil
}

// flushWriter sends every write at once, so that a followed log is live.
type flushWriter struct {
	w     io.Writer
	flush *http.ResponseController
	wrote bool
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(p)
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
