package cri

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// holdIdle is how long a holder that has nothing to hold waits for an agent.
const holdIdle = time.Minute

// HoldMain is the log holder: what the agent's hidden command runs. It listens on
// descriptor 3, where the agent left the socket, and returns when it holds
// nothing and nobody is connected for a while.
func HoldMain() error {
	file := os.NewFile(3, "hold.sock")
	l, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("log holder: descriptor 3 is not the agent's socket: %w", err)
	}
	if err := file.Close(); err != nil {
		return err
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return errors.New("log holder: descriptor 3 is not a unix socket")
	}
	debug.FreeOSMemory() // what the packages of the agent's binary have left behind
	h := &holding{listener: listener, keep: map[string]heldFiles{}, idle: holdIdle}
	return h.serve()
}

// holding is the state of a log holder.
type holding struct {
	listener *net.UnixListener
	idle     time.Duration

	mu    sync.Mutex // guards all below
	keep  map[string]heldFiles
	conns int
	quit  bool
}

// heldFiles are descriptors with the names their owner gave them.
type heldFiles struct {
	names []string
	fds   []int
}

// serve answers agents until there has been nothing to do for a while.
func (h *holding) serve() error {
	defer h.listener.Close()
	h.settle()
	for {
		conn, err := h.listener.AcceptUnix()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !h.needed():
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // needed again; settle has moved the deadline, or will
		case err != nil && h.quitting():
			return nil
		case err != nil:
			return fmt.Errorf("log holder: accept: %w", err)
		}
		if err := checkPeer(conn); err != nil {
			_ = conn.Close() // a stranger
			continue
		}
		h.count(1)
		go h.converse(conn) // ends with the connection; the process ends with all
	}
}

// settle sets the time to end to when nothing may be left to do by then.
func (h *holding) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	var deadline time.Time
	if len(h.keep) == 0 && h.conns == 0 {
		deadline = time.Now().Add(h.idle)
	}
	_ = h.listener.SetDeadline(deadline) // fails only on a closed listener, and then the process ends
}

func (h *holding) needed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.keep) > 0 || h.conns > 0
}

func (h *holding) quitting() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quit
}

func (h *holding) count(n int) {
	h.mu.Lock()
	h.conns += n
	h.mu.Unlock()
	h.settle()
}

// converse answers one agent until it is gone.
func (h *holding) converse(conn *net.UnixConn) {
	defer h.count(-1)
	defer conn.Close()
	for {
		m, fds, err := receiveHold(conn)
		if err != nil {
			return
		}
		if err := h.answer(conn, m, fds); err != nil {
			return
		}
	}
}

func (h *holding) answer(conn *net.UnixConn, m holdMessage, fds []int) error {
	switch m.verb {
	case verbHold:
		if len(m.names) != len(fds) || m.key == "" {
			closeFDs(fds)
			return refuse(conn, "a key, and a descriptor for each name, are needed")
		}
		h.replace(m.key, &heldFiles{m.names, fds})
	case verbDrop:
		closeFDs(fds)
		h.replace(m.key, nil)
	case verbRecall:
		closeFDs(fds)
		return h.handBack(conn, m.key)
	case verbList:
		closeFDs(fds)
		return h.list(conn)
	case verbQuit:
		h.mu.Lock()
		h.quit = true
		h.mu.Unlock()
		return h.listener.Close()
	default:
		closeFDs(fds)
		return refuse(conn, "unknown request "+m.verb)
	}
	return sendFDs(conn, holdMessage{verb: verbOK}, nil)
}

// replace lets go what is held under key and holds files instead, if there are any.
func (h *holding) replace(key string, files *heldFiles) {
	h.mu.Lock()
	old := h.keep[key]
	if files != nil {
		h.keep[key] = *files
	} else {
		delete(h.keep, key)
	}
	h.mu.Unlock()
	closeFDs(old.fds)
	h.settle()
}

// handBack sends copies of what is held under key.
func (h *holding) handBack(conn *net.UnixConn, key string) error {
	h.mu.Lock()
	defer h.mu.Unlock() // or the descriptors may be closed and used for others meanwhile
	files := h.keep[key]
	return sendFDs(conn, holdMessage{verb: verbOK, key: key, names: files.names}, files.fds)
}

// list sends all keys, in messages that are not too long, and an empty one.
func (h *holding) list(conn *net.UnixConn) error {
	h.mu.Lock()
	keys := make([]string, 0, len(h.keep))
	for key := range h.keep {
		keys = append(keys, key)
	}
	h.mu.Unlock()
	slices.Sort(keys)
	const perMessage = 16 // each at most a path long
	for part := range slices.Chunk(keys, perMessage) {
		if err := sendFDs(conn, holdMessage{verb: verbOK, names: part}, nil); err != nil {
			return err
		}
	}
	return sendFDs(conn, holdMessage{verb: verbOK}, nil)
}

func refuse(conn *net.UnixConn, reason string) error {
	return sendFDs(conn, holdMessage{verb: verbError, key: strings.ReplaceAll(reason, "\x00", "")}, nil)
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // never written to; nothing can be lost
	}
}
