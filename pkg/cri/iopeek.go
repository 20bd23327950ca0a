package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// peekSize is how much of a stream is looked at, and so at most repeated after
	// a crash, at a time: what a pipe holds by default.
	peekSize = 64 << 10
	// busyPipeSize is the room a FIFO gets once its writer has filled the default.
	// Not more, and not for all: the kernel counts the room of all pipes per user,
	// and past a limit gives tiny pipes to the user's unprivileged processes, such
	// as those in containers.
	busyPipeSize = 256 << 10
)

// peeker is what it takes to look into a FIFO: a private pipe that tee(2) can
// duplicate into, and buffers. Only a pump at work needs one.
type peeker struct {
	r, w, null int
	room       int // of the private pipe
	in, out    []byte
}

// peekers lends peekers to the pumps of all containers. It bounds how many work
// at once, and so their memory; an idle container has none.
type peekers struct {
	free chan *peeker // nil: to be made
}

func newPeekers() *peekers {
	p := &peekers{free: make(chan *peeker, 2*runtime.GOMAXPROCS(0))}
	for range cap(p.free) {
		p.free <- nil
	}
	return p
}

// get lends a peeker until put.
func (p *peekers) get(ctx context.Context) (*peeker, error) {
	select {
	case k := <-p.free:
		if k != nil {
			return k, nil
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k, err := newPeeker()
	if err != nil {
		p.free <- nil
	}
	return k, err
}

// put takes a peeker back. One whose pipe may not be empty is not used again.
func (p *peekers) put(k *peeker, reusable bool) {
	if !reusable {
		k.close()
		k = nil
	}
	p.free <- k
}

// close frees what nobody uses now.
func (p *peekers) close() {
	for range cap(p.free) {
		select {
		case k := <-p.free:
			if k != nil {
				k.close()
			}
			p.free <- nil
		default:
			return
		}
	}
}

func newPeeker() (*peeker, error) {
	null, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), unix.Close(null))
	}
	return &peeker{
		r: p[0], w: p[1], null: null, room: pipeSize(p[1], peekSize),
		in: make([]byte, peekSize), out: make([]byte, 0, peekSize+maxLogContent+128),
	}, nil
}

func (k *peeker) close() {
	for _, fd := range []int{k.r, k.w, k.null} {
		_ = unix.Close(fd) // ours alone, and nothing was written that could be lost
	}
}

// peek copies the first bytes of a FIFO and leaves them there. Nothing and
// io.EOF means that it is empty and has no writer, nothing and nil that it is
// empty for now.
func (k *peeker) peek(fifo int) ([]byte, error) {
	n, err := unix.Tee(fifo, k.w, len(k.in), unix.SPLICE_F_NONBLOCK)
	for err == unix.EINTR {
		n, err = unix.Tee(fifo, k.w, len(k.in), unix.SPLICE_F_NONBLOCK)
	}
	switch {
	case err == unix.EAGAIN:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look into FIFO: %w", err)
	case n == 0:
		return nil, io.EOF
	}
	for done := 0; done < int(n); {
		got, err := unix.Read(k.r, k.in[done:n])
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == 0 {
			return nil, fmt.Errorf("read the private pipe: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		done += got
	}
	return k.in[:n], nil
}

// consume takes the first n bytes, which peek has returned, out of the FIFO.
func (k *peeker) consume(fifo, n int) error {
	for n > 0 {
		got, err := unix.Splice(fifo, nil, k.null, nil, n, unix.SPLICE_F_NONBLOCK)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == 0 {
			return fmt.Errorf("take bytes from FIFO: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		n -= int(got)
	}
	return nil
}

// hungUp says whether a FIFO has lost its last writer. A FIFO that never had one
// since it was opened has not.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}

// pipeSize is a pipe's room in bytes, after an attempt to make it at least want.
func pipeSize(fd, want int) int {
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 0
	}
	if size < want {
		if bigger, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, want); err == nil {
			return bigger
		}
	}
	return size
}
