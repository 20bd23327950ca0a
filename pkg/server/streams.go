package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	streamIdleTimeout     = 4 * time.Hour
	streamCreationTimeout = 30 * time.Second
	// exitKilled is how a shell reports a command that was killed.
	exitKilled = 128 + 9
	// maxRunOutput is how much /run answers with, in bytes.
	maxRunOutput = 1 << 20
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
	UID                       types.UID // empty: whichever pod has the name
	Command                   []string  // exec only
	Stdin                     io.Reader
	Stdout, Stderr            io.Writer
	TTY                       bool
	Resize                    <-chan TerminalSize
}

// targetOf is what a request's path names.
func targetOf(r *http.Request) Target {
	return Target{
		Namespace: r.PathValue("namespace"), Pod: r.PathValue("pod"), UID: types.UID(r.PathValue("uid")),
		Container: r.PathValue("container"), Running: true,
	}
}

// find says early, with a status code of its own, what is wrong with a target.
func (s *service) find(r *http.Request, t Target) error {
	if s.Find == nil {
		return nil
	}
	uid, err := s.Find(r.Context(), t)
	callOf(r).uid = uid
	return err
}

// begin takes a place for a session and looks for its target.
func (s *service) begin(r *http.Request) (t Target, release func(), err error) {
	t = targetOf(r)
	if release, err = s.sessions.take(callOf(r).holder(), t.Namespace+"/"+t.Pod); err != nil {
		return t, nil, err
	}
	if err := s.find(r, t); err != nil {
		release()
		return t, nil, err
	}
	return t, release, nil
}

func (s *service) exec(w http.ResponseWriter, r *http.Request) error {
	if s.Exec == nil {
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
	callOf(r).command = command
	t, release, err := s.begin(r)
	if err != nil {
		return err
	}
	defer release()
	uw, r := watchClient(w, r)
	defer uw.end()
	remotecommand.ServeExec(uw, r, executor{session: s.Exec, target: t}, t.Pod, string(t.UID), t.Container, command, opts,
		s.idle, streamCreationTimeout, supportedProtocols())
	return nil
}

func (s *service) attach(w http.ResponseWriter, r *http.Request) error {
	if s.Attach == nil {
		return errNotServed
	}
	opts, err := streamOptions(r)
	if err != nil {
		return err
	}
	t, release, err := s.begin(r)
	if err != nil {
		return err
	}
	defer release()
	uw, r := watchClient(w, r)
	defer uw.end()
	remotecommand.ServeAttach(uw, r, executor{session: s.Attach, target: t}, t.Pod, string(t.UID), t.Container, opts,
		s.idle, streamCreationTimeout, supportedProtocols())
	return nil
}

// run answers with the output of a command, the way the kubelet does: the command
// comes as one parameter, its words apart by spaces.
func (s *service) run(w http.ResponseWriter, r *http.Request) error {
	if s.Exec == nil {
		return errNotServed
	}
	command := strings.Split(r.URL.Query().Get("cmd"), " ")
	if command[0] == "" {
		return BadRequest("run needs a cmd")
	}
	c := callOf(r)
	c.command = command
	t, release, err := s.begin(r)
	if err != nil {
		return err
	}
	defer release()
	var out bytes.Buffer
	limited := &limitWriter{w: &out, left: maxRunOutput}
	err = s.Exec(r.Context(), Session{Namespace: t.Namespace, Pod: t.Pod, Container: t.Container, UID: t.UID, Command: command, Stdout: limited, Stderr: limited})
	if err != nil {
		return err
	}
	c.bytes.Add(int64(out.Len()))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = w.Write(out.Bytes())
	return err
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
	session func(context.Context, Session) error
	target  Target
}

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, pod, uid, container string, cmd []string,
	in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	err := e.session(ctx, Session{Namespace: e.target.Namespace, Pod: pod, UID: types.UID(uid), Container: container, Command: cmd,
		Stdin: in, Stdout: out, Stderr: errOut, TTY: tty, Resize: resize})
	if err != nil && ctx.Err() != nil { // no failure of ours: the client or the agent has ended, and so the command
		return utilexec.CodeExitError{Err: err, Code: exitKilled}
	}
	return err
}

// AttachContainer implements remotecommand.Attacher.
func (e executor) AttachContainer(ctx context.Context, pod, uid, container string,
	in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	err := e.session(ctx, Session{Namespace: e.target.Namespace, Pod: pod, UID: types.UID(uid), Container: container,
		Stdin: in, Stdout: out, Stderr: errOut, TTY: tty, Resize: resize})
	if ctx.Err() != nil { // the client or the agent has ended; the container goes on
		return nil
	}
	return err
}
