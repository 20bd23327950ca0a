package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The names of the output streams, as they are in the log.
const (
	streamStdout = "stdout"
	streamStderr = "stderr"
)

// pump carries one output FIFO of a container to its log.
//
//	shim ─► FIFO ──tee(2)──► private pipe ─► records ─► log file
//	          └─ splice(2) to /dev/null: only what is in the file by now
//
// A process killed at any instruction so leaves every byte in the FIFO or in the
// file, sometimes in both, never in neither. The beginning of a line stays in the
// FIFO until its end is there, until it fills a record, or until the writer is
// gone. Waiting is edge-triggered: what stays in the FIFO wakes nobody.
type pump struct {
	stream string
	fifo   *os.File
	log    *logFile
	watch  *audience
	peeks  *peekers

	// Used by the goroutine in run alone.
	limit int // longest content of a record
	room  int // size of the FIFO
	shown int // bytes at the FIFO's head that attached clients have seen
}

// errStopped ends a pump whose container is removed.
var errStopped = errors.New("container is removed")

// run returns nil when the stream has ended and all of it is in the log, and
// ctx's error when ctx ends first: then the rest is for the next agent.
func (p *pump) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.interrupt)
	defer stop()
	raw, err := p.fifo.SyscallConn()
	if err != nil {
		return err
	}
	var turnErr error
	err = raw.Read(func(fd uintptr) bool {
		var done bool
		done, turnErr = p.turn(ctx, int(fd))
		return done || turnErr != nil
	})
	switch {
	case errors.Is(context.Cause(ctx), errStopped):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case turnErr != nil:
		return fmt.Errorf("carry %s to the log: %w", p.stream, turnErr)
	case err != nil:
		return fmt.Errorf("wait for %s: %w", p.stream, err)
	}
	return nil
}

// interrupt makes a pump that waits return.
func (p *pump) interrupt() {
	_ = p.fifo.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, which nobody waits for
}

// turn moves all there is and says whether the stream has ended. If not, the next
// write or the last close wakes us.
func (p *pump) turn(ctx context.Context, fd int) (ended bool, err error) {
	for ctx.Err() == nil {
		p.watch.awaitRoom(ctx) // without a peeker, which others need
		ended, idle, err := p.look(ctx, fd)
		if idle || err != nil {
			return ended, err
		}
	}
	return false, ctx.Err()
}

// look moves what there is until nothing is left (idle) or attached clients are
// behind.
func (p *pump) look(ctx context.Context, fd int) (ended, idle bool, err error) {
	k, err := p.peeks.get(ctx)
	if err != nil {
		return false, false, err
	}
	defer func() { p.peeks.put(k, err == nil) }()
	p.measure(fd, k.room)
	for ctx.Err() == nil && !p.watch.behind() {
		last := hungUp(fd) // asked first: nothing can be added after a yes
		moved, err := p.move(k, fd, last)
		if err != nil {
			return false, false, err
		}
		if !moved {
			return last, true, nil
		}
	}
	return false, false, ctx.Err()
}

// measure learns what the FIFO can hold. A record must be cut before the FIFO is
// full without a newline in sight; of two pages of a full one at least one page
// is used, because small writes share pages.
func (p *pump) measure(fd, private int) {
	if p.room == 0 {
		p.room = pipeSize(fd, peekSize)
	}
	p.limit = max(min(maxLogContent, p.room/2, private/2), 1)
}

// move brings what one look shows into the log. Without a whole record in sight
// it moves nothing.
func (p *pump) move(k *peeker, fd int, last bool) (bool, error) {
	data, err := k.peek(fd)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if len(data) >= p.room && p.room < busyPipeSize {
		p.room = max(pipeSize(fd, busyPipeSize), p.room+1) // asked once
	}
	if len(data) > p.shown {
		p.watch.show(p.stream, data[p.shown:])
		p.shown = len(data)
	}
	moved := false
	for len(data) > 0 {
		records, taken := p.format(k.out[:0], data, last)
		if taken == 0 {
			break
		}
		p.log.append(records)
		if err := k.consume(fd, taken); err != nil {
			return false, err
		}
		moved = true
		p.shown -= taken
		data = data[taken:]
	}
	return moved, nil
}

// format renders records until dst is full or data has no whole one left, and
// returns how many bytes of data they stand for.
func (p *pump) format(dst, data []byte, atEnd bool) ([]byte, int) {
	taken := 0
	for len(dst) < peekSize {
		c := cutRecord(data[taken:], p.limit, atEnd)
		if c.taken == 0 {
			break
		}
		dst = appendRecord(dst, time.Now(), p.stream, c)
		taken += c.taken
	}
	return dst, taken
}

// finish makes a FIFO that has no writer say so, even if it was opened only after
// the last one left. A FIFO that still has writers does not notice.
func (p *pump) finish() error {
	return at(p.fifo, func(fd int) error {
		w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the writing end of %s: %w", p.stream, err)
		}
		return unix.Close(w)
	})
}
