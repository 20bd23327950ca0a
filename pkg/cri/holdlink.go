package cri

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxHoldMessage = 8 << 10
	// maxHeldFDs is how many descriptors one container has: three streams.
	maxHeldFDs = 8
)

// errNoHolder says that nobody listens.
var errNoHolder = errors.New("no log holder")

// ask sends one request and returns the answer. If the holder is gone, start says
// whether to start another one and give it everything first.
func (h *Holder) ask(m holdMessage, files map[string]*os.File, start bool) (holdMessage, []int, error) {
	l := <-h.link
	defer func() { h.link <- l }()
	for attempt := 0; ; attempt++ {
		if l.conn == nil {
			if err := h.connect(l, start); err != nil {
				return holdMessage{}, nil, err
			}
		}
		answer, fds, err := l.exchange(m, files)
		if _, refused := errors.AsType[*holdError](err); err == nil || refused {
			return answer, fds, err
		}
		l.disconnect()
		if attempt > 0 {
			return holdMessage{}, nil, err
		}
	}
}

// connect gives l a connection to a holder that has everything it is to have.
func (h *Holder) connect(l *holdLink, start bool) error {
	l.reap()
	conn, err := dialHolder(h.socket)
	if errors.Is(err, errNoHolder) && start {
		if l.child, err = startHolder(h.socket, h.command, h.start); err != nil {
			return err
		}
		h.log.Info("log holder started", "pid", l.child)
		conn, err = dialHolder(h.socket)
	}
	if err != nil {
		return err
	}
	l.conn = conn
	h.mu.Lock()
	all := maps.Clone(h.held)
	h.mu.Unlock()
	for key, files := range all {
		names := make([]string, 0, len(files))
		for name := range files {
			names = append(names, name)
		}
		_, _, err := l.exchange(holdMessage{verb: verbHold, key: key, names: names}, files)
		if errors.Is(err, os.ErrClosed) {
			continue // let go meanwhile
		}
		if err != nil {
			l.disconnect()
			return fmt.Errorf("hand %s to the log holder: %w", key, err)
		}
	}
	return nil
}

// holdError is what a holder that works had to say against a request.
type holdError struct{ reason string }

func (e *holdError) Error() string { return "log holder: " + e.reason }

// exchange sends m with the files it names and reads the answer.
func (l *holdLink) exchange(m holdMessage, files map[string]*os.File) (holdMessage, []int, error) {
	if err := l.conn.SetDeadline(time.Now().Add(holdTimeout)); err != nil {
		return holdMessage{}, nil, err
	}
	ordered := make([]*os.File, 0, len(m.names))
	for _, name := range m.names {
		ordered = append(ordered, files[name])
	}
	if err := sendHold(l.conn, m, ordered); err != nil {
		return holdMessage{}, nil, err
	}
	answer, fds, err := receiveHold(l.conn)
	if m.verb == verbList {
		for part := answer; err == nil && len(part.names) > 0; answer.names = append(answer.names, part.names...) {
			part, _, err = receiveHold(l.conn)
		}
	}
	if err == nil && answer.verb != verbOK {
		err = &holdError{answer.key}
	}
	return answer, fds, err
}

func (l *holdLink) disconnect() {
	if l.conn != nil {
		_ = l.conn.Close() // every exchange was answered, or has failed already
		l.conn = nil
	}
	l.reap()
}

// reap takes notice of the end of a holder that we started.
func (l *holdLink) reap() {
	if l.child == 0 {
		return
	}
	if pid, err := unix.Wait4(l.child, nil, unix.WNOHANG, nil); pid == l.child || err == unix.ECHILD {
		l.child = 0
	}
}

// dialHolder connects to the holder, if that runs as the user we run as.
func dialHolder(socket string) (*net.UnixConn, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%w at %s", errNoHolder, socket)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the log holder: %w", err)
	}
	if err := checkPeer(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// checkPeer accepts root and ourselves at the other end.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, ctlErr); err != nil {
		return fmt.Errorf("ask who is at the other end: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d at the other end of the log holder's socket", cred.Uid)
	}
	return nil
}

// startHolder makes the socket and starts a process that inherits it: who
// connects from now on waits for it.
func startHolder(socket string, command []string, start func(*exec.Cmd) error) (pid int, err error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return 0, fmt.Errorf("listen for the log holder: %w", err)
	}
	l.SetUnlinkOnClose(false) // the holder goes on listening
	defer l.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		return 0, err
	}
	f, err := l.File()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=20"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := start(cmd); err != nil {
		return 0, fmt.Errorf("start the log holder: %w", err)
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release() // reap waits for it
}

// sendHold sends one message with the files that go with it.
func sendHold(conn *net.UnixConn, m holdMessage, files []*os.File) error {
	fds := make([]int, 0, len(files))
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd) // a copy; the message has its own
		}
	}()
	for _, f := range files {
		err := at(f, func(fd int) error {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
			if err == nil {
				fds = append(fds, dup)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("copy descriptor: %w", err)
		}
	}
	return sendFDs(conn, m, fds)
}

func sendFDs(conn *net.UnixConn, m holdMessage, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := conn.WriteMsgUnix(m.encode(), oob, nil)
	return err
}

// receiveHold receives one message with its descriptors.
func receiveHold(conn *net.UnixConn) (holdMessage, []int, error) {
	data, oob := make([]byte, maxHoldMessage), make([]byte, unix.CmsgSpace(maxHeldFDs*4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return holdMessage{}, nil, err
	}
	if n == 0 {
		return holdMessage{}, nil, net.ErrClosed
	}
	parts, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return holdMessage{}, nil, err
	}
	var fds []int
	for _, part := range parts {
		got, err := unix.ParseUnixRights(&part)
		if err != nil {
			return holdMessage{}, nil, err
		}
		fds = append(fds, got...)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		for _, fd := range fds {
			_ = unix.Close(fd) // a message that was cut is refused as a whole
		}
		return holdMessage{}, nil, errors.New("message to or from the log holder is too long")
	}
	return decodeHold(data[:n]), fds, nil
}
