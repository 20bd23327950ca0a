package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// ioConfig says where a container's streams are and what they are.
type ioConfig struct {
	ID, Dir, LogPath      string
	TTY, Stdin, StdinOnce bool
	MaxSize               int64
	MaxFiles              int
	Holder                *Holder
	Log                   *slog.Logger
}

func (r *Runtime) ioConfig(id, logPath string, flags ioFlags) ioConfig {
	return ioConfig{
		ID: id, Dir: filepath.Join(r.containerDir(id), "io"), LogPath: logPath,
		TTY: flags.TTY, Stdin: flags.Stdin, StdinOnce: flags.StdinOnce,
		MaxSize: r.cfg.LogMaxSize, MaxFiles: r.cfg.LogMaxFiles, Holder: r.holder, Log: r.cfg.Log,
	}
}

// containerIO is the agent's end of a container's streams: FIFOs whose other end
// is the shim's, and the pump that carries output to the log.
type containerIO struct {
	cfg     ioConfig
	streams []*stream
	stdin   *os.File // nil unless the container has stdin
	log     *logFile
	fan     fanout
	drained chan struct{}
}

// newContainerIO makes or opens the FIFOs of a container and hands them to the
// holder. For a container of an earlier agent it opens the same ones again.
func newContainerIO(cfg ioConfig) (*containerIO, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	c := &containerIO{cfg: cfg, drained: make(chan struct{})}
	c.log = &logFile{path: cfg.LogPath, maxSize: cfg.MaxSize, maxFiles: cfg.MaxFiles, report: cfg.Log}
	names := []string{"stdout", "stderr"}
	if cfg.TTY {
		names = names[:1] // a terminal has one output stream
	}
	var held []*os.File
	for _, name := range names {
		s, err := openStream(filepath.Join(cfg.Dir, name), name)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.streams = append(c.streams, s)
		held = append(held, s.fifo)
	}
	if cfg.Stdin {
		f, err := openFIFO(filepath.Join(cfg.Dir, "stdin"), unix.O_RDWR) // does not wait for a reader
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.stdin = f
		held = append(held, f)
	}
	if err := cfg.Holder.Hold(cfg.ID, held...); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func openFIFO(path string, mode int) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	return os.OpenFile(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// Paths are the FIFOs in the order in which containerd wants them; empty means
// that there is none.
func (c *containerIO) Paths() (stdin, stdout, stderr string) {
	if c.stdin != nil {
		stdin = filepath.Join(c.cfg.Dir, "stdin")
	}
	stdout = filepath.Join(c.cfg.Dir, "stdout")
	if !c.cfg.TTY {
		stderr = filepath.Join(c.cfg.Dir, "stderr")
	}
	return stdin, stdout, stderr
}

// Run carries output to the log until all streams have ended or ctx ends. In the
// latter case everything stays as it is, for the next agent.
func (c *containerIO) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		for _, s := range c.streams {
			s.interrupt()
		}
	})
	defer stop()
	var wg sync.WaitGroup
	for _, s := range c.streams {
		wg.Go(func() {
			if err := s.pump(c.log, c.fan.send); err != nil && ctx.Err() == nil {
				c.cfg.Log.Warn("log of container interrupted", "container", c.cfg.ID, "stream", s.name, "err", err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() == nil {
		close(c.drained)
		c.fan.end()
	}
	if err := c.log.Close(); err != nil {
		c.cfg.Log.Warn("close log", "container", c.cfg.ID, "err", err)
	}
}

// Drained is closed when every stream has ended and is in the log.
func (c *containerIO) Drained() <-chan struct{} { return c.drained }

// Attach copies the container's output to the writers, from now on, and stdin to
// the container. It returns when the container's streams end, when ctx ends, or
// when a writer is too slow or fails. A nil stream is left out.
func (c *containerIO) Attach(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	done := c.fan.subscribe(stdout, stderr)
	defer c.fan.unsubscribe(done)
	if stdin != nil && c.stdin != nil {
		go func() { // ends with the client's stream, which the caller owns
			_, err := io.Copy(c.stdin, stdin)
			if err == nil && c.cfg.StdinOnce {
				err = errors.Join(c.stdin.Close(), c.cfg.Holder.Drop(c.cfg.ID))
			}
			if err != nil && !errors.Is(err, fs.ErrClosed) {
				c.cfg.Log.Debug("stdin of container ended", "container", c.cfg.ID, "err", err)
			}
		}()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done.ended:
		return err
	}
}

// Remove lets the streams go. The log stays.
func (c *containerIO) Remove() error {
	return errors.Join(c.close(), c.cfg.Holder.Drop(c.cfg.ID), os.RemoveAll(c.cfg.Dir))
}

func (c *containerIO) close() error {
	var errs []error
	for _, s := range c.streams {
		errs = append(errs, s.close())
	}
	if c.stdin != nil {
		if err := c.stdin.Close(); !errors.Is(err, fs.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
