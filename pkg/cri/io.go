package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
)

const (
	// removeGrace is how long the rest of the output may take to reach the log
	// when a container is removed.
	removeGrace = time.Second
	// pumpRetry is how long a pump waits after an error, such as too many open files.
	pumpRetry = time.Second
)

// Names in a container's IO directory, besides those of the output streams.
const (
	stdinName = "stdin"
	// drainedName says that all output is in the log: a later agent could not tell
	// that from a quiet container.
	drainedName = "drained"
	// stdinClosedName says that StdinOnce has happened.
	stdinClosedName = "stdin-closed"
)

// ioConfig says where a container's streams are and what they are.
type ioConfig struct {
	ID      string
	Dir     string // the FIFOs; also the key under which the holder knows them
	LogPath string // empty: output is not kept
	TTY     bool
	Stdin   bool
	// StdinOnce closes the container's stdin when its first client is done.
	StdinOnce bool
	// StdinClosed tells the shim, which holds an end of stdin as well; may be nil.
	StdinClosed func() error
	MaxSize     int64 // of a log file in bytes; 0 or less: never rotated
	MaxFiles    int   // log files, the current one included
	Holder      *Holder
	Log         *slog.Logger
}

func (r *Runtime) ioConfig(id, logPath string, flags ioFlags) ioConfig {
	return ioConfig{
		ID: id, Dir: filepath.Join(r.containerDir(id), "io"), LogPath: logPath,
		TTY: flags.TTY, Stdin: flags.Stdin, StdinOnce: flags.StdinOnce,
		StdinClosed: func() error {
			ctx, cancel := detached(r.life)
			defer cancel()
			_, err := r.client.TaskService().CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: id, Stdin: true})
			return err
		},
		MaxSize: r.cfg.LogMaxSize, MaxFiles: r.cfg.LogMaxFiles, Holder: r.holder, Log: r.cfg.Log,
	}
}

// containerIO is the agent's end of a container's streams: FIFOs whose other ends
// are the shim's, and the pumps that carry output to the log.
//
//	newContainerIO ─► Run ─► Drained ─► Remove
//	                   └─ ctx ends: the next agent's newContainerIO goes on
type containerIO struct {
	cfg     ioConfig
	log     *logFile
	pumps   []*pump
	watch   audience
	drained chan struct{}
	stopped chan struct{} // closed when Run returns

	mu      sync.Mutex              // guards all below
	cancel  context.CancelCauseFunc // ends Run; nil before Run
	removed bool
	stdin   *os.File // our end, which keeps stdin open; nil: there is none, or it is closed
}

// newContainerIO makes the FIFOs of a container, hands them to the holder and
// makes the log. For a container of an earlier agent it goes on where that one
// stopped. It starts nothing.
func newContainerIO(cfg ioConfig) (*containerIO, error) {
	c := &containerIO{cfg: cfg, drained: make(chan struct{}), stopped: make(chan struct{})}
	c.log = &logFile{path: cfg.LogPath, maxSize: cfg.MaxSize, report: cfg.Log, rotated: func() {}}
	if c.marked(drainedName) {
		close(c.drained)
		c.watch.end(nil)
		return c, nil
	}
	_, err := os.Lstat(cfg.Dir)
	adopt := err == nil
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	files, err := c.openStreams(adopt)
	if err == nil {
		err = c.log.open()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the streams of container %s: %w", cfg.ID, err), closeAll(files))
	}
	for _, name := range c.outputs() {
		c.pumps = append(c.pumps, &pump{stream: name, fifo: files[name], log: c.log, watch: &c.watch, peeks: cfg.Holder.peeks})
	}
	c.stdin = files[stdinName]
	if err := cfg.Holder.hold(cfg.Dir, files); err != nil {
		// The container works without; only a kill of the agent would lose output.
		cfg.Log.Warn("container output is not held", "container", cfg.ID, "err", err)
	}
	return c, nil
}

// outputs are the names of the output streams; a terminal has but one.
func (c *containerIO) outputs() []string {
	if c.cfg.TTY {
		return []string{streamStdout}
	}
	return []string{streamStdout, streamStderr}
}

// openStreams takes the FIFOs of an earlier agent back from the holder, or makes
// them. Those of the holder are better: opened before the writers came, they know
// when those left.
func (c *containerIO) openStreams(adopt bool) (map[string]*os.File, error) {
	var files map[string]*os.File
	if adopt {
		var err error
		if files, err = c.cfg.Holder.recall(c.cfg.Dir); err != nil {
			c.cfg.Log.Warn("log holder does not answer", "container", c.cfg.ID, "err", err)
		}
	}
	if files == nil {
		files = map[string]*os.File{}
	}
	open := map[string]func(path string) (*os.File, error){}
	for _, name := range c.outputs() {
		open[name] = openOutput
	}
	if c.cfg.Stdin && !c.marked(stdinClosedName) {
		open[stdinName] = openInput
	}
	for name, open := range open {
		if files[name] != nil {
			continue
		}
		f, err := open(filepath.Join(c.cfg.Dir, name))
		if err != nil {
			return files, err
		}
		files[name] = f
	}
	return files, nil
}

// Paths are the FIFOs in the order in which containerd wants them; empty means
// that there is none.
func (c *containerIO) Paths() (stdin, stdout, stderr string) {
	if c.cfg.Stdin {
		stdin = filepath.Join(c.cfg.Dir, stdinName)
	}
	stdout = filepath.Join(c.cfg.Dir, streamStdout)
	if !c.cfg.TTY {
		stderr = filepath.Join(c.cfg.Dir, streamStderr)
	}
	return stdin, stdout, stderr
}

// Drained is closed when every stream has ended and is in the log.
func (c *containerIO) Drained() <-chan struct{} { return c.drained }

// Run carries output to the log until all streams have ended or ctx ends. In the
// latter case everything stays as it is, for the next agent.
func (c *containerIO) Run(ctx context.Context) {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !c.begin(cancel) {
		return
	}
	defer close(c.stopped)
	var pumps, tidying sync.WaitGroup
	defer tidying.Wait()
	var wanted atomic.Int32 // how often tidying was asked for
	c.log.rotated = func() {
		if wanted.Add(1) == 1 {
			tidying.Go(func() { c.tidy(running, &wanted) })
		}
	}
	for _, p := range c.pumps {
		pumps.Go(func() { c.pump(running, p) })
	}
	pumps.Wait()
	var err error
	if ctx.Err() != nil && !errors.Is(context.Cause(running), errStopped) {
		c.watch.end(errIOEnded)
		c.cfg.Holder.forget(c.cfg.Dir)
	} else {
		err = errors.Join(c.mark(drainedName), c.cfg.Holder.drop(c.cfg.Dir))
		close(c.drained)
		c.watch.end(nil)
	}
	if err = errors.Join(err, c.close()); err != nil {
		c.cfg.Log.Warn("let the streams of container go", "container", c.cfg.ID, "err", err)
	}
}

// begin lets Run begin, once.
func (c *containerIO) begin(cancel context.CancelCauseFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed || c.cancel != nil || len(c.pumps) == 0 {
		return false
	}
	c.cancel = cancel
	return true
}

// pump runs p until its stream or ctx ends. It does not give up: nobody else
// empties the FIFO, and the container waits when it is full.
func (c *containerIO) pump(ctx context.Context, p *pump) {
	for {
		err := p.run(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		c.cfg.Log.Warn("container output interrupted", "container", c.cfg.ID, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pumpRetry):
		}
	}
}

// tidy compresses and removes rotated files until nobody has asked meanwhile. On
// the whole node one does so at a time.
func (c *containerIO) tidy(ctx context.Context, wanted *atomic.Int32) {
	for {
		asked := wanted.Load()
		select {
		case c.cfg.Holder.tidying <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := tidyLogs(ctx, c.cfg.LogPath, c.cfg.MaxFiles)
		<-c.cfg.Holder.tidying
		if err != nil {
			c.cfg.Log.Warn("tidy up rotated logs", "container", c.cfg.ID, "err", err)
		}
		if wanted.CompareAndSwap(asked, 0) {
			return
		}
	}
}

// Remove lets the streams go, after what is in them has reached the log; a writer
// that still goes on is not waited for. The log stays.
func (c *containerIO) Remove() error {
	c.mu.Lock()
	cancel := c.cancel
	c.removed = true
	c.mu.Unlock()
	if cancel != nil {
		for _, p := range c.pumps {
			_ = p.finish() // fails only when it is closed already
		}
		select {
		case <-c.stopped:
		case <-time.After(removeGrace):
			cancel(errStopped)
			<-c.stopped
		}
	}
	return errors.Join(c.close(), c.cfg.Holder.drop(c.cfg.Dir), os.RemoveAll(c.cfg.Dir))
}

// closeStdin gives the container the end of its input, for good.
func (c *containerIO) closeStdin() error {
	c.mu.Lock()
	stdin := c.stdin
	c.stdin = nil
	c.mu.Unlock()
	if stdin == nil {
		return nil
	}
	files := map[string]*os.File{}
	for _, p := range c.pumps {
		files[p.stream] = p.fifo
	}
	errs := []error{c.mark(stdinClosedName), c.cfg.Holder.hold(c.cfg.Dir, files), stdin.Close()}
	if c.cfg.StdinClosed != nil {
		errs = append(errs, c.cfg.StdinClosed())
	}
	return errors.Join(errs...)
}

// mark keeps a fact for later agents. A directory that is gone needs none.
func (c *containerIO) mark(name string) error {
	f, err := os.OpenFile(filepath.Join(c.cfg.Dir, name), os.O_CREATE|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func (c *containerIO) marked(name string) bool {
	_, err := os.Lstat(filepath.Join(c.cfg.Dir, name))
	return err == nil
}

// close closes our ends and the log. Whoever else holds the FIFOs keeps them.
func (c *containerIO) close() error {
	files := map[string]*os.File{}
	for _, p := range c.pumps {
		files[p.stream] = p.fifo
	}
	c.mu.Lock()
	files[stdinName], c.stdin = c.stdin, nil
	c.mu.Unlock()
	return errors.Join(closeAll(files), c.log.close())
}
