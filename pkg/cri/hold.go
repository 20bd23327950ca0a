package cri

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// holdIdle is how long a holder with nothing to hold waits for its next agent.
const holdIdle = time.Minute

// Holder is the agent's side of the log holder: a process that keeps the FIFOs
// of running containers open and never reads them. Output that nobody has read
// yet so outlives both the agent and the container.
//
// Each message is "hold <key>" with descriptors, or "drop <key>"; the answer is
// "ok" or what went wrong. A holder that was killed is started again and given
// everything anew. Without a command nothing is held.
type Holder struct {
	socket  string
	command []string
	log     *slog.Logger

	mu   sync.Mutex // guards all below, and the order of messages
	conn *net.UnixConn
	held map[string][]*os.File
}

// NewHolder returns the agent's side of a holder that command starts, with its
// socket below stateDir. Nothing is started before something is to be held.
func NewHolder(stateDir string, command []string, log *slog.Logger) *Holder {
	return &Holder{socket: filepath.Join(stateDir, "hold.sock"), command: command, log: log, held: map[string][]*os.File{}}
}

// Hold keeps files open until Drop(key), also when this process ends.
func (h *Holder) Hold(key string, files ...*os.File) error {
	if len(h.command) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[key] = files
	if err := h.send("hold "+key, files); err == nil {
		return nil
	}
	return h.restart()
}

// Drop lets the files of key go. An unknown key is success.
func (h *Holder) Drop(key string) error {
	if len(h.command) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.held[key]; !known {
		return nil
	}
	delete(h.held, key)
	if err := h.send("drop "+key, nil); err == nil {
		return nil
	}
	return h.restart()
}

// Close ends the connection. The holder goes on.
func (h *Holder) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		return nil
	}
	err := h.conn.Close()
	h.conn = nil
	return err
}

// send sends one message and waits for its answer. The caller holds mu.
func (h *Holder) send(message string, files []*os.File) error {
	if h.conn == nil {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: h.socket, Net: "unixpacket"})
		if err != nil {
			return err
		}
		h.conn = conn
	}
	err := exchange(h.conn, message, files)
	if err != nil {
		err = errors.Join(err, h.conn.Close())
		h.conn = nil
	}
	return err
}

func exchange(conn *net.UnixConn, message string, files []*os.File) error {
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			raw, err := f.SyscallConn() // not Fd, which would make the file blocking
			if err != nil {
				return err
			}
			if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
				return err
			}
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix([]byte(message), oob, nil); err != nil {
		return err
	}
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if s := string(answer[:n]); s != "ok" {
		return fmt.Errorf("log holder: %s", s)
	}
	return nil
}

// restart starts a holder and gives it all there is to hold. The caller holds mu.
func (h *Holder) restart() error {
	if err := os.Remove(h.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: h.socket, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("listen for the log holder: %w", err)
	}
	l.SetUnlinkOnClose(false) // the holder goes on listening
	defer l.Close()
	if err := os.Chmod(h.socket, 0o600); err != nil {
		return err
	}
	f, err := l.File()
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(h.command[0], h.command[1:]...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=20"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the log holder: %w", err)
	}
	go func() { _ = cmd.Wait() }() // only so that no zombie stays; it ends with the holder or with us
	h.log.Info("log holder started", "pid", cmd.Process.Pid)
	for key, files := range h.held {
		if err := h.send("hold "+key, files); err != nil {
			return fmt.Errorf("hand %s to the log holder: %w", key, err)
		}
	}
	return nil
}

// HoldMain is the log holder. It listens on descriptor 3 and returns when it has
// held nothing, and nobody was connected, for a while.
func HoldMain() error {
	l, err := net.FileListener(os.NewFile(3, "holder"))
	if err != nil {
		return fmt.Errorf("log holder: descriptor 3: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		return errors.New("log holder: descriptor 3 is not a unix socket")
	}
	return (&holding{fds: map[string][]int{}}).serve(unixListener)
}

// holding is the state of a log holder: one agent at a time.
type holding struct {
	fds map[string][]int
}

func (h *holding) serve(l *net.UnixListener) error {
	for {
		if err := l.SetDeadline(time.Now().Add(holdIdle)); err != nil {
			return err
		}
		conn, err := l.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if len(h.fds) == 0 {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		h.converse(conn)
	}
}

// converse answers one agent until it is gone.
func (h *holding) converse(conn *net.UnixConn) {
	defer conn.Close()
	message, oob := make([]byte, 512), make([]byte, unix.CmsgSpace(8*4))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(message, oob)
		if err != nil || n == 0 {
			return
		}
		answer := "ok"
		if err := h.obey(string(message[:n]), oob[:oobn]); err != nil {
			answer = err.Error()
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}

func (h *holding) obey(message string, oob []byte) error {
	fds, err := receivedFDs(oob)
	if err != nil {
		return err
	}
	verb, key, _ := strings.Cut(message, " ")
	old := h.fds[key]
	switch verb {
	case "hold":
		h.fds[key] = fds
	case "drop":
		delete(h.fds, key)
		old = append(old, fds...)
	default:
		return fmt.Errorf("unknown message %q", message)
	}
	var errs []error
	for _, fd := range old {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

func receivedFDs(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}
