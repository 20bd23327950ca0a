package cri

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxLogLine is the longest content of one record; longer lines are split.
	maxLogLine = 16384
	// fifoSize is how much a container can write while nobody reads.
	fifoSize = 1 << 20
)

// stream is one output FIFO of a container.
//
// Bytes are first duplicated out of the FIFO with tee(2), then written to the
// log, and only then taken out. So a process that is killed in between repeats
// records and loses none. The beginning of a line stays in the FIFO until its
// end is there, or until it is long enough for a record of its own.
type stream struct {
	name string
	fifo *os.File
	// peekR and peekW are the private pipe that tee fills.
	peekR, peekW int
	size         int    // of both pipes, in bytes
	buf          []byte // what was peeked
	shown        int    // bytes of the FIFO's content that attached clients have seen
	out          bytes.Buffer
}

func openStream(path, name string) (*stream, error) {
	f, err := openFIFO(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	s := &stream{name: name, fifo: f, size: 65536}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), f.Close())
	}
	s.peekR, s.peekW = p[0], p[1]
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	// More room is a kindness; without it the default does.
	err = raw.Control(func(fd uintptr) {
		if n, err := unix.FcntlInt(fd, unix.F_SETPIPE_SZ, fifoSize); err == nil {
			if _, err := unix.FcntlInt(uintptr(s.peekW), unix.F_SETPIPE_SZ, n); err == nil {
				s.size = n
			}
		}
	})
	return s, err
}

// interrupt makes a pump that waits return.
func (s *stream) interrupt() {
	_ = s.fifo.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, whose pump has returned
}

func (s *stream) close() error {
	errs := []error{s.fifo.Close()}
	if errors.Is(errs[0], fs.ErrClosed) {
		return nil
	}
	return errors.Join(append(errs, unix.Close(s.peekR), unix.Close(s.peekW))...)
}

// pump carries the FIFO's content to log until the writers are gone (nil) or the
// stream is interrupted. show sees bytes as soon as they are there.
func (s *stream) pump(log *logFile, show func(stream string, p []byte)) error {
	raw, err := s.fifo.SyscallConn()
	if err != nil {
		return err
	}
	left := 0 // bytes of an unfinished line that stay in the FIFO
	for {
		n, ended, err := s.peek(raw, left)
		if err != nil {
			return err
		}
		if fresh := s.buf[s.shown:n]; len(fresh) > 0 {
			show(s.name, fresh)
		}
		taken := s.format(s.buf[:n], ended)
		if taken > 0 {
			log.write(s.out.Bytes())
			if err := s.consume(raw, taken); err != nil {
				return err
			}
		}
		left = n - taken
		s.shown = left
		if ended && left == 0 && n == 0 {
			return nil
		}
	}
}

// peek waits until the FIFO holds more than left bytes, or its writers are gone,
// and copies what it holds to buf.
func (s *stream) peek(raw syscall.RawConn, left int) (n int, ended bool, err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		var got int64
		got, err = unix.Tee(int(fd), s.peekW, s.size, unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = nil
			return false // empty; the poller tells of the next write
		case errors.Is(err, unix.EINTR):
			err = nil
			return false
		case err != nil:
			err = fmt.Errorf("peek into FIFO: %w", err)
			return true
		}
		n = int(got)
		if err = s.drainPeek(n); err != nil {
			return true
		}
		ended = n == 0 || hungUp(int(fd)) && n == left
		return ended || n > left
	})
	return n, ended, errors.Join(err, waitErr)
}

// drainPeek reads what tee has put into the private pipe.
func (s *stream) drainPeek(n int) error {
	if cap(s.buf) < n {
		s.buf = make([]byte, max(n, 4096))
	}
	s.buf = s.buf[:n]
	for done := 0; done < n; {
		k, err := unix.Read(s.peekR, s.buf[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read peeked bytes: %w", err)
		}
		if k == 0 {
			return io.ErrUnexpectedEOF
		}
		done += k
	}
	return nil
}

// hungUp says whether no writer is left.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}

// consume takes n bytes, which are in the log now, out of the FIFO.
func (s *stream) consume(raw syscall.RawConn, n int) error {
	var err error
	ctlErr := raw.Control(func(fd uintptr) {
		for done := 0; done < n; {
			var k int
			k, err = unix.Read(int(fd), s.buf[done:n])
			if errors.Is(err, unix.EINTR) {
				err = nil
				continue
			}
			if err != nil {
				err = fmt.Errorf("consume from FIFO: %w", err)
				return
			}
			done += k
		}
	})
	return errors.Join(err, ctlErr)
}

// format renders the records of data into out and returns how many bytes they
// stand for. An unfinished last line is rendered only when it is long enough, or
// when nothing will follow.
func (s *stream) format(data []byte, ended bool) int {
	s.out.Reset()
	now := time.Now().Format(time.RFC3339Nano)
	taken := 0
	for rest := data; len(rest) > 0; rest = data[taken:] {
		end := bytes.IndexByte(rest, '\n')
		switch {
		case end > maxLogLine || end < 0 && len(rest) >= maxLogLine:
			s.record(now, 'P', rest[:maxLogLine])
			taken += maxLogLine
		case end >= 0:
			s.record(now, 'F', bytes.TrimSuffix(rest[:end], []byte{'\r'}))
			taken += end + 1
		case ended:
			s.record(now, 'P', rest)
			taken += len(rest)
		default:
			return taken
		}
	}
	return taken
}

func (s *stream) record(now string, tag byte, content []byte) {
	s.out.WriteString(now)
	s.out.WriteByte(' ')
	s.out.WriteString(s.name)
	s.out.Write([]byte{' ', tag, ' '})
	s.out.Write(content)
	s.out.WriteByte('\n')
}
