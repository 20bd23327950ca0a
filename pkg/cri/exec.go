package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// execDrain bounds the wait for the output of an exec whose children keep it open.
	execDrain = 2 * time.Second
	// execForget bounds the shim's own wait for those children, which is 10 s.
	execForget = 30 * time.Second
	// maxProbeOutput is how much of a command's output is kept, in bytes.
	maxProbeOutput = 10 << 10
)

// ErrNotRunning says that the container of an exec or attach does not run.
var ErrNotRunning = errors.New("container is not running")

// Size is the size of a terminal in characters.
type Size struct{ Width, Height uint16 }

// ExecOptions says what to run and which streams it gets; a nil stream is none.
type ExecOptions struct {
	Cmd            []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size
}

// CommandError says that a command could not be started: it is not there (127, as
// in a shell) or cannot be executed (126).
type CommandError struct {
	Code int
	Err  error
}

func (e *CommandError) Error() string { return e.Err.Error() }
func (e *CommandError) Unwrap() error { return e.Err }

// Exec runs a command in a container and returns its exit code. When ctx ends
// the command is killed with its process group. A command that cannot be started
// is a *CommandError.
func (r *Runtime) Exec(ctx context.Context, id string, o ExecOptions) (int, error) {
	_, c := r.find(id)
	if c == nil || r.get(c).State != Running {
		return 0, fmt.Errorf("exec in container %s: %w", id, ErrNotRunning)
	}
	task, err := r.task(ctx, id)
	if err != nil {
		return 0, err
	}
	spec, err := task.Spec(ctx)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	process := *spec.Process
	process.Args, process.Terminal = o.Cmd, o.TTY
	if o.TTY {
		process.Env = append(process.Env, "TERM=xterm")
	}
	execID, err := newID()
	if err != nil {
		return 0, err
	}
	var input *endReader
	if o.Stdin != nil {
		input = &endReader{r: o.Stdin, end: make(chan struct{})}
	}
	execProcess, err := task.Exec(ctx, execID, &process, execIO(filepath.Join(r.containerDir(id), "exec"), &o, input))
	if err != nil {
		return 0, notRunning(fmt.Errorf("exec in container %s: %w", id, err))
	}
	defer r.endExec(ctx, id, execProcess)
	return r.runExec(ctx, execProcess, &o, input)
}

// endExec kills what may be left of a command and has the shim forget it, which
// nobody waits for: a child that holds the streams makes the shim wait for it.
func (r *Runtime) endExec(ctx context.Context, id string, process containerd.Process) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := containerd.WithProcessKill(ctx, process); err != nil && !errdefs.IsNotFound(err) {
		r.cfg.Log.Debug("end exec", "container", id, "err", err)
	}
	process.IO().Cancel() // nothing more reaches the client
	r.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, execForget)
		defer cancel()
		if _, err := process.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
			r.cfg.Log.Debug("delete exec", "container", id, "err", err)
		}
	})
}

// endReader tells when its reader has ended.
type endReader struct {
	r    io.Reader
	once sync.Once
	end  chan struct{}
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil {
		e.once.Do(func() { close(e.end) })
	}
	return n, err
}

func execIO(dir string, o *ExecOptions, input *endReader) cio.Creator {
	var stdin io.Reader
	if input != nil {
		stdin = input
	}
	options := []cio.Opt{cio.WithFIFODir(dir), cio.WithStreams(stdin, orDiscard(o.Stdout), orDiscard(o.Stderr))}
	if o.TTY {
		options = append(options, cio.WithTerminal)
	}
	return cio.NewCreator(options...)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// runExec starts a command that was added and waits for it.
func (r *Runtime) runExec(ctx context.Context, process containerd.Process, o *ExecOptions, input *endReader) (int, error) {
	exit, err := process.Wait(ctx) // before Start, or a quick end is missed
	if err != nil {
		return 0, err
	}
	// A start that is broken off may leave a command that runs and that nobody knows.
	starting, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if err := process.Start(starting); err != nil {
		return 0, notRunning(notStarted(o.Cmd, err))
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	if o.Resize != nil {
		go resize(running, process, o.Resize)
	}
	if input != nil && !o.TTY {
		go closeInput(running, process, input)
	}
	pidfd, err := openDaemon(int(process.Pid()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = pidfd.close() }() // nothing is written to it
	select {
	case status := <-exit:
		code, _, err := status.Result()
		if ctx.Err() != nil {
			return 0, errors.Join(ctx.Err(), pidfd.endGroup())
		}
		if err != nil {
			return 0, err
		}
		drained := make(chan struct{})
		go func() { process.IO().Wait(); close(drained) }() // ends at the latest when endExec closes the streams
		select {
		case <-drained:
		case <-time.After(execDrain):
		}
		return int(code), nil
	case <-ctx.Done():
		return 0, errors.Join(ctx.Err(), pidfd.endGroup())
	}
}

// closeInput passes the end of a client's input on: the shim holds an end of
// stdin as well.
func closeInput(ctx context.Context, process containerd.Process, input *endReader) {
	select {
	case <-input.end:
		_ = process.CloseIO(ctx, containerd.WithStdinCloser) // a process that has just ended has no input
	case <-ctx.Done():
	}
}

// endGroup kills the process group that the process leads, while it does: the
// number of a process that lives can belong to no other group.
func (d *daemon) endGroup() error {
	if d == nil {
		return nil
	}
	group, err := unix.Getpgid(d.pid)
	if err == nil {
		err = at(d.fd, func(fd int) error { return unix.PidfdSendSignal(fd, 0, nil, 0) })
	}
	if errors.Is(err, unix.ESRCH) || group != d.pid {
		return nil // it has ended, or leads none
	}
	if err != nil {
		return fmt.Errorf("find process group %d: %w", d.pid, err)
	}
	if err := unix.Kill(-d.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", d.pid, err)
	}
	return nil
}

// notStarted explains why a command could not be started. The OCI runtime says so
// in words only; those of the kernel's errors at their end are the same everywhere.
func notStarted(cmd []string, err error) error {
	if _, reason, found := strings.Cut(err.Error(), "unable to start container process: "); found {
		for _, c := range []struct {
			words string
			code  int
		}{
			{"executable file not found in $PATH", 127},
			{"no such file or directory", 127},
			{"permission denied", 126},
			{"is a directory", 126},
			{"exec format error", 126},
		} {
			if strings.HasSuffix(strings.TrimSpace(reason), c.words) {
				return &CommandError{Code: c.code, Err: fmt.Errorf("cannot run %q in the container: %s", cmd[0], c.words)}
			}
		}
	}
	return fmt.Errorf("start %q: %w", cmd, err)
}

// resize passes terminal sizes on until ctx ends.
func resize(ctx context.Context, process interface {
	Resize(ctx context.Context, w, h uint32) error
}, sizes <-chan Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			if s.Width > 0 && s.Height > 0 {
				_ = process.Resize(ctx, uint32(s.Width), uint32(s.Height)) // a process that has just ended has no size
			}
		}
	}
}

// ExecSync runs a command for at most timeout (0: no limit) and returns its exit
// code and the first part of its output. A timeout is context.DeadlineExceeded.
func (r *Runtime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (int, []byte, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	out := &capped{}
	code, err := r.Exec(ctx, id, ExecOptions{Cmd: cmd, Stdout: out, Stderr: out})
	return code, out.bytes(), err
}

// capped keeps the first bytes and takes the rest.
type capped struct {
	mu  sync.Mutex // guards buf: stdout and stderr are copied at the same time
	buf bytes.Buffer
}

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := maxProbeOutput - c.buf.Len(); room > 0 {
		c.buf.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

func (c *capped) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.buf.Bytes())
}

// AttachOptions says which streams to connect; a nil stream is none.
type AttachOptions struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size
}

// Ended is closed when a container has exited and its log is complete. It is nil
// when nothing is known of the container.
func (r *Runtime) Ended(id string) <-chan struct{} {
	if _, c := r.find(id); c != nil {
		return c.exited
	}
	return nil
}

// Attach connects to a container's main process until it or the client ends.
func (r *Runtime) Attach(ctx context.Context, id string, o AttachOptions) error {
	_, c := r.find(id)
	if c == nil || r.get(c).State != Running {
		return fmt.Errorf("attach to container %s: %w", id, ErrNotRunning)
	}
	if o.Resize != nil {
		task, err := r.task(ctx, id)
		if err != nil {
			return err
		}
		resizing, stop := context.WithCancel(ctx)
		defer stop()
		go resize(resizing, task, o.Resize)
	}
	return c.io.Attach(ctx, o.Stdin, o.Stdout, o.Stderr)
}

// task loads a running container's task without its streams.
func (r *Runtime) task(ctx context.Context, id string) (containerd.Task, error) {
	container, err := r.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, notRunning(fmt.Errorf("load container %s: %w", id, err))
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return nil, notRunning(fmt.Errorf("load the task of container %s: %w", id, err))
	}
	return task, nil
}

// notRunning adds ErrNotRunning to errors that mean it.
func notRunning(err error) error {
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return errors.Join(ErrNotRunning, err)
	}
	return err
}
