package cri

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// holdTimeout bounds one exchange with the holder.
	holdTimeout = 5 * time.Second
	// holdRetry is between attempts to bring a lost holder back.
	holdRetry = time.Second
)

// Holder is the agent's side of the log holder: a process that keeps the FIFOs of
// running containers open and never reads them. Output that nobody has read yet
// so outlives both the agent and the container.
//
// The holder is started when there is something to hold. One that was killed is
// noticed at once, started again and given everything anew. Without a command
// nothing is held. A Holder also has what the streams of all containers share.
type Holder struct {
	socket  string
	command []string
	start   func(*exec.Cmd) error // how the command is started
	log     *slog.Logger

	peeks   *peekers
	tidying chan struct{} // capacity 1: rotated logs are compressed one at a time

	// link has the connection, or nil, and whoever took it may use it: one
	// exchange after the other.
	link chan *holdLink

	mu       sync.Mutex                     // guards all below
	held     map[string]map[string]*os.File // what the holder is to have, by key and name
	watching bool                           // the goroutine that awaits its loss runs
	closed   bool
	work     sync.WaitGroup // that goroutine
	closing  chan struct{}
}

// holdLink is a connection to a holder.
type holdLink struct {
	conn  *net.UnixConn
	child int // process id, if we started the holder; it is ours to reap
}

// NewHolder returns the agent's side of a holder that command starts, with its
// socket below stateDir.
func NewHolder(stateDir string, command []string, log *slog.Logger) *Holder {
	h := &Holder{
		socket: filepath.Join(stateDir, "hold.sock"), command: command, start: (*exec.Cmd).Start, log: log,
		peeks: newPeekers(), tidying: make(chan struct{}, 1),
		link: make(chan *holdLink, 1), held: map[string]map[string]*os.File{}, closing: make(chan struct{}),
	}
	h.link <- &holdLink{}
	return h
}

// hold keeps files open until drop(key), also when this process ends. It replaces
// what was held under key. A nil file is left out.
func (h *Holder) hold(key string, files map[string]*os.File) error {
	files = maps.Clone(files)
	maps.DeleteFunc(files, func(_ string, f *os.File) bool { return f == nil })
	if !h.note(key, files) {
		return nil
	}
	_, _, err := h.ask(holdMessage{verb: verbHold, key: key, names: slices.Sorted(maps.Keys(files))}, files, true)
	if err != nil {
		return fmt.Errorf("hand %s to the log holder: %w", key, err)
	}
	return nil
}

// recall returns new descriptors of what is held under key; nothing is no error.
// A holder is not started to be asked.
func (h *Holder) recall(key string) (map[string]*os.File, error) {
	if len(h.command) == 0 {
		return nil, nil
	}
	answer, fds, err := h.ask(holdMessage{verb: verbRecall, key: key}, nil, false)
	if errors.Is(err, errNoHolder) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the log holder for %s: %w", key, err)
	}
	files := map[string]*os.File{}
	for i, fd := range fds {
		if i >= len(answer.names) {
			_ = unix.Close(fd) // more than was named: not what we handed out
			continue
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, errors.Join(err, unix.Close(fd), closeAll(files))
		}
		files[answer.names[i]] = os.NewFile(uintptr(fd), filepath.Join(key, answer.names[i]))
	}
	return files, nil
}

// drop lets the files of key go. An unknown key is success, and so is a holder
// that is gone: it holds nothing.
func (h *Holder) drop(key string) error {
	h.forget(key)
	if len(h.command) == 0 {
		return nil
	}
	_, _, err := h.ask(holdMessage{verb: verbDrop, key: key}, nil, false)
	if err != nil && !errors.Is(err, errNoHolder) {
		return fmt.Errorf("take %s from the log holder: %w", key, err)
	}
	return nil
}

// forget leaves the files of key with the holder, whatever becomes of ours.
func (h *Holder) forget(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, key)
}

// note remembers what the holder is to have, and sees to it that its loss is
// noticed. It says whether there is a holder to be told.
func (h *Holder) note(key string, files map[string]*os.File) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.command) == 0 || h.closed {
		return false
	}
	h.held[key] = files
	if !h.watching {
		h.watching = true
		h.work.Go(h.watch)
	}
	return true
}

// Close ends the connection. The holder goes on.
func (h *Holder) Close() error {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.closing)
	}
	h.mu.Unlock()
	h.work.Wait()
	l := <-h.link
	l.disconnect()
	h.link <- l
	h.peeks.close()
	return nil
}

// watch keeps a connection of its own and restores the holder when that breaks.
func (h *Holder) watch() {
	for first := true; ; first = false {
		began := time.Now()
		conn, err := dialHolder(h.socket)
		if err == nil {
			h.dropStale()
			h.awaitLoss(conn)
		}
		var pause time.Duration
		if !first && time.Since(began) < holdRetry {
			pause = holdRetry // neither starting nor failing may become a busy loop
		}
		select {
		case <-h.closing:
			return
		case <-time.After(pause):
		}
		if h.isClosed() {
			return // select picks any of two that are ready
		}
		if err == nil {
			h.log.Warn("log holder is gone; starting it again")
		}
		if err := h.restore(); err != nil {
			h.log.Error("log holder does not come back; output is lost if the agent is killed now", "err", err)
		}
	}
}

func (h *Holder) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// awaitLoss returns when the holder is gone or Close was called.
func (h *Holder) awaitLoss(conn *net.UnixConn) {
	done := make(chan struct{})
	var closer sync.WaitGroup
	closer.Go(func() {
		select {
		case <-h.closing:
		case <-done:
		}
		_ = conn.Close() // nothing was sent on it
	})
	_, _ = conn.Read(make([]byte, 1)) // a holder never speaks first
	close(done)
	closer.Wait()
}

// restore makes sure that there is a holder and that it has everything.
func (h *Holder) restore() error {
	_, _, err := h.ask(holdMessage{verb: verbList}, nil, true)
	return err
}

// dropStale takes from the holder what belongs to directories that are gone: an
// earlier agent was killed between removing and dropping.
func (h *Holder) dropStale() {
	answer, _, err := h.ask(holdMessage{verb: verbList}, nil, false)
	for _, key := range answer.names {
		if _, statErr := os.Lstat(key); !errors.Is(statErr, os.ErrNotExist) {
			continue
		}
		h.mu.Lock()
		_, known := h.held[key]
		h.mu.Unlock()
		if !known {
			err = errors.Join(err, h.drop(key))
		}
	}
	if err != nil {
		h.log.Warn("tidy up the log holder", "err", err)
	}
}

// StopHolder ends the holder below stateDir, whatever it holds. None is success.
func StopHolder(stateDir string) error {
	conn, err := dialHolder(filepath.Join(stateDir, "hold.sock"))
	if errors.Is(err, errNoHolder) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := errors.Join(conn.SetDeadline(time.Now().Add(holdTimeout)), sendHold(conn, holdMessage{verb: verbQuit}, nil)); err != nil {
		return fmt.Errorf("stop the log holder: %w", err)
	}
	_, _ = conn.Read(make([]byte, 1)) // until it has gone
	return nil
}

// holdMessage is a request to the holder, or its answer: a verb, a key and names,
// separated by zero bytes. Descriptors come with it, in the order of the names.
type holdMessage struct {
	verb  string
	key   string
	names []string
}

const (
	verbHold   = "hold"
	verbRecall = "recall"
	verbDrop   = "drop"
	verbList   = "list" // answered in parts; the last is empty
	verbQuit   = "quit"
	verbOK     = "ok"
	verbError  = "error" // with the reason as key
)

func (m holdMessage) encode() []byte {
	return []byte(strings.Join(append([]string{m.verb, m.key}, m.names...), "\x00"))
}

func decodeHold(data []byte) holdMessage {
	parts := strings.Split(string(data), "\x00")
	m := holdMessage{verb: parts[0]}
	if len(parts) > 1 {
		m.key, m.names = parts[1], parts[2:]
	}
	return m
}
