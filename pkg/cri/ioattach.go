package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxBacklog is how many bytes wait for one attached client before the
	// container has to.
	maxBacklog = 1 << 20
	// attachPatience is how long the container waits for a client that has
	// maxBacklog before it and reads nothing.
	attachPatience = time.Second
	// pieceCost stands for the memory that a queued piece takes besides its bytes.
	pieceCost = 64
)

var (
	errTooSlow = errors.New("the client does not read the container's output; the log has all of it")
	errIOEnded = errors.New("the agent lets the container's streams go")
)

// audience is who watches a container's output besides its log. The container
// waits for a client that reads, as it would for a terminal, even when the whole
// machine is slow; one that reads nothing for attachPatience is dropped.
type audience struct {
	mu       sync.Mutex // guards all below and the fields of the spectators; never held across I/O
	watching []*spectator
	over     bool
	why      error
	took     chan struct{} // closed when a spectator takes or leaves; nil: nobody waits for that
}

// spectator is one attached client.
type spectator struct {
	stdout, stderr bool
	wake           chan struct{} // capacity 1: there is something to take

	queue   []piece
	backlog int
	full    time.Time // when it last read while backlog was too long; zero: it is not
	over    bool
	why     error
}

// piece is output that several spectators share; nobody changes it.
type piece struct {
	stream string
	data   []byte
}

// join adds a spectator, who sees what comes from now on.
func (a *audience) join(stdout, stderr bool) *spectator {
	s := &spectator{stdout: stdout, stderr: stderr, wake: make(chan struct{}, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		s.over, s.why = true, a.why
	} else {
		a.watching = append(a.watching, s)
	}
	return s
}

// dismiss lets one spectator go, after what is queued for it.
func (a *audience) dismiss(s *spectator, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.Index(a.watching, s); i >= 0 {
		a.watching = slices.Delete(a.watching, i, i+1)
		s.end(why)
		a.moved()
	}
}

// end lets everybody go, after what is queued for them.
func (a *audience) end(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	a.over, a.why = true, why
	for _, s := range a.watching {
		s.end(why)
	}
	a.watching = nil
	a.moved()
}

// moved wakes the pumps that wait for spectators. The caller holds mu.
func (a *audience) moved() {
	if a.took != nil {
		close(a.took)
		a.took = nil
	}
}

// awaitRoom returns when nobody's backlog is too long. Whoever keeps it waiting
// is dropped.
func (a *audience) awaitRoom(ctx context.Context) {
	for {
		took, patience := a.crowded(time.Now())
		if took == nil {
			return
		}
		select {
		case <-took:
		case <-time.After(patience):
		case <-ctx.Done():
			return
		}
	}
}

// behind says whether somebody's backlog is too long.
func (a *audience) behind() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.watching, func(s *spectator) bool { return !s.full.IsZero() })
}

// crowded drops those who have read nothing for too long. If some are still
// behind, it returns what is closed when one of them moves, and how long the
// first of them has.
func (a *audience) crowded(now time.Time) (took <-chan struct{}, patience time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	patience = attachPatience
	behind := false
	a.watching = slices.DeleteFunc(a.watching, func(s *spectator) bool {
		if s.full.IsZero() {
			return false
		}
		left := s.full.Add(attachPatience).Sub(now)
		if left <= 0 {
			s.queue = nil
			s.end(errTooSlow)
			return true
		}
		behind, patience = true, min(patience, left)
		return false
	})
	if !behind {
		return nil, 0
	}
	if a.took == nil {
		a.took = make(chan struct{})
	}
	return a.took, patience
}

// show queues p for everybody who wants the stream.
func (a *audience) show(stream string, p []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.watching) == 0 {
		return
	}
	c := piece{stream, slices.Clone(p)}
	for _, s := range a.watching {
		if !s.stdout && stream == streamStdout || !s.stderr && stream == streamStderr {
			continue
		}
		s.queue = append(s.queue, c)
		s.backlog += len(p) + pieceCost
		if s.backlog > maxBacklog && s.full.IsZero() {
			s.full = time.Now()
		}
		s.poke()
	}
}

// end marks the end. The caller holds the audience's mu.
func (s *spectator) end(why error) {
	s.over, s.why = true, why
	s.poke()
}

func (s *spectator) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wrote notes that a client has read a piece: it is slow, but it reads.
func (a *audience) wrote(s *spectator) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !s.full.IsZero() {
		s.full = time.Now()
	}
}

// take returns what is queued, and whether nothing will follow.
func (a *audience) take(s *spectator) (queue []piece, over bool, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	queue, s.queue, s.backlog, s.full = s.queue, nil, 0, time.Time{}
	a.moved()
	return queue, s.over, s.why
}

// deliver writes to a client until it is let go, ctx ends or a writer fails.
func (a *audience) deliver(ctx context.Context, s *spectator, stdout, stderr io.Writer) error {
	for {
		queue, over, why := a.take(s)
		for _, c := range queue {
			w := stdout
			if c.stream == streamStderr {
				w = stderr
			}
			if _, err := w.Write(c.data); err != nil {
				return fmt.Errorf("write to attached client: %w", err)
			}
			a.wrote(s)
		}
		if over {
			return why
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Attach shows the container's output to the writers, from now on, and feeds
// stdin to the container; a nil stream is left out. It returns when the output
// ends, when stdin ends (unless that closes the container's own, see StdinOnce),
// when ctx ends, when a writer fails or when the client is too slow. The writers
// must fail when the client is gone. A read of stdin may still be going on
// afterwards; the caller ends it by closing the client's stream.
func (c *containerIO) Attach(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	s := c.watch.join(stdout != nil, stderr != nil)
	defer c.watch.dismiss(s, nil)
	if stdin != nil && c.cfg.Stdin {
		in, err := os.OpenFile(filepath.Join(c.cfg.Dir, "stdin"), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
		if err != nil {
			return fmt.Errorf("open the container's stdin: %w", err)
		}
		defer in.Close()
		go c.feed(in, stdin, s) // ends with the client's stream, which is the caller's
	}
	return c.watch.deliver(ctx, s, stdout, stderr)
}

// feed copies a client's input to the container.
func (c *containerIO) feed(in *os.File, stdin io.Reader, s *spectator) {
	_, err := io.Copy(in, stdin)
	if err != nil && !errors.Is(err, os.ErrClosed) {
		c.cfg.Log.Debug("input of attached client ended", "container", c.cfg.ID, "err", err)
	}
	if !c.cfg.StdinOnce || c.cfg.TTY {
		c.watch.dismiss(s, nil) // as a kubelet with containerd does
		return
	}
	if err := errors.Join(in.Close(), c.closeStdin()); err != nil && !errors.Is(err, os.ErrClosed) {
		c.cfg.Log.Warn("close stdin of container", "container", c.cfg.ID, "err", err)
	}
}
