package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// maxDaemonLog is the size at which containerd's log is put aside, in bytes.
const maxDaemonLog = 10 << 20

// daemon is a process that we may not be the parent of.
type daemon struct {
	pid int
	fd  *os.File // pidfd: it never means another process
}

// openDaemon returns the process pid, or nil if there is none.
func openDaemon(pid int) (*daemon, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	// While a process is being reaped its number is there and nobody has it: to
	// newer kernels that is EINVAL.
	if err == unix.ESRCH || err == unix.EINVAL && pid > 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &daemon{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait says whether the process has ended; false means that ctx ended first.
func (d *daemon) wait(ctx context.Context) bool {
	if err := d.fd.SetReadDeadline(time.Time{}); err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() {
		_ = d.fd.SetReadDeadline(time.Unix(1, 0)) // fails only when closed
	})
	defer stop()
	raw, err := d.fd.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1
	})
	if err == nil {
		// Reaped if it was started by us; otherwise that is somebody else's work.
		_ = at(d.fd, func(fd int) error { return unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil) })
	}
	return err == nil
}

// end asks the process to end, kills it after grace, and waits.
func (d *daemon) end(ctx context.Context, grace time.Duration) error {
	if grace > 0 {
		if err := d.signal(unix.SIGTERM); err != nil {
			return err
		}
		asked, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if d.wait(asked) {
			return nil
		}
	}
	if err := d.signal(unix.SIGKILL); err != nil {
		return err
	}
	if !d.wait(ctx) {
		return fmt.Errorf("process %d does not end: %w", d.pid, ctx.Err())
	}
	return nil
}

func (d *daemon) signal(s unix.Signal) error {
	err := at(d.fd, func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (d *daemon) close() error {
	if d == nil {
		return nil
	}
	return d.fd.Close()
}

// processID tells a process from others that had or will have its number: by the
// boot and the tick at which it started.
func processID(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field, the name in parentheses, may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const startTime = 22 - 3 // numbered from 1, and the first two are cut off
	if len(fields) <= startTime {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	boot, err := bootID()
	return boot + "/" + string(fields[startTime]), err
}

// socketOwner returns the process that listens on a socket; 0 means none.
func socketOwner(address string) (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: address, Net: "unix"})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, ctlErr); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// start starts a containerd and waits until it says that it is ready.
func (e *Embedded) start(ctx context.Context) (*daemon, error) {
	binary, err := LookBinary("containerd", e.BinDirs)
	if err != nil {
		return nil, err
	}
	if err := writeFileAtomically(e.configPath(), []byte(e.config()), 0o600); err != nil {
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	notify, err := e.listenNotify()
	if err != nil {
		return nil, err
	}
	defer notify.Close()
	began := time.Now()
	d, err := e.launch(binary)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	err = e.keepPID(d)
	if err == nil {
		err = awaitReady(ctx, notify, d)
	}
	if err == nil {
		err = awaitHealth(ctx, e.Address(), d)
	}
	if err != nil {
		err = fmt.Errorf("%s (log: %s): %w", binary, e.logPath(), err)
		if errors.Is(ctx.Err(), context.Canceled) { // the agent ends; the next one finds what has started
			return nil, errors.Join(err, d.close())
		}
		ctx, cancel := detached(ctx)
		defer cancel()
		return nil, errors.Join(err, d.end(ctx, 0), d.close())
	}
	e.Log.Info("containerd started", "pid", d.pid, "took", time.Since(began).Round(time.Millisecond))
	return d, nil
}

// launch runs containerd in a session of its own, with its output in a file: a
// pipe would end with us, and it with the pipe.
func (e *Embedded) launch(binary string) (*daemon, error) {
	if err := tidyDaemonLog(e.logPath()); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(e.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, logFileMode)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(binary, "--config", e.configPath())
	cmd.Dir = "/"
	cmd.Env = e.environ()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d, err := openDaemon(cmd.Process.Pid)
	if err == nil && d == nil {
		err = errors.New("it has ended already")
	}
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Process.Release())
	}
	return d, cmd.Process.Release() // wait does its work
}

// environ is ours, without what systemd meant for us alone.
func (e *Embedded) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"PATH", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}, name)
	})
	return append(env, "PATH="+e.searchPath(), "NOTIFY_SOCKET="+e.notifyPath())
}

// listenNotify opens the socket on which containerd reports as to systemd.
func (e *Embedded) listenNotify() (*net.UnixConn, error) {
	if err := os.Remove(e.notifyPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: e.notifyPath(), Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for containerd's readiness: %w", err)
	}
	if err := os.Chmod(e.notifyPath(), 0o600); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// awaitReady returns nil once the process says READY=1.
func awaitReady(ctx context.Context, notify *net.UnixConn, d *daemon) error {
	living, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		_ = d.wait(living)
		_ = notify.SetReadDeadline(time.Unix(1, 0)) // ended, or nobody waits any more
	})
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("not ready in time: %w", ctx.Err())
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("it ended at once")
		case err != nil:
			return err
		case slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1"):
			return nil
		}
	}
}

// awaitHealth returns nil once containerd answers that it serves.
func awaitHealth(ctx context.Context, address string, d *daemon) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		if d.wait(ctx) {
			cancel()
		}
	})
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second},
			// Without it a handshake that takes longer than the delay is broken off,
			// and on a slow machine each one does.
			MinConnectTimeout: embeddedStart,
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("ask containerd for its health: %w", err)
	}
	if resp.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("containerd's health: %s", resp.Status)
	}
	return nil
}

// tidyDaemonLog puts a long log aside. The writer keeps its descriptor, so the
// content is copied and the file emptied; a line in between may be lost.
func tidyDaemonLog(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < maxDaemonLog {
		return err
	}
	old, err := os.OpenFile(path+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, logFileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(old, f)
	return errors.Join(err, f.Truncate(0), old.Close())
}
