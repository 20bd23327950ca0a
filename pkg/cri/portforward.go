package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// dialTimeout bounds the connect to a port of a pod. It is loopback.
const dialTimeout = 10 * time.Second

// PortForward connects stream with a port of a pod's own loopback interface, until
// both sides have sent all they have to, one of them fails, or ctx ends. The end
// of what one side sends is passed on to the other, which may still answer.
func (r *Runtime) PortForward(ctx context.Context, uid types.UID, port int32, stream io.ReadWriteCloser) error {
	p, ok := r.Pod(uid)
	if !ok || p.Sandbox == nil || !p.Sandbox.Ready {
		return fmt.Errorf("forward port %d: %w", port, ErrNotRunning)
	}
	conn, err := dialIn(ctx, p.Sandbox.NetNS, strconv.Itoa(int(port)))
	if err != nil {
		return err
	}
	join(ctx, conn, stream)
	return nil
}

// dialIn connects to a port of the loopback interface in a network namespace; an
// empty path is this process's own. A socket belongs to the namespace that its
// thread was in when it was made.
func dialIn(ctx context.Context, netns, port string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if netns == "" {
		return dialLoopback(ctx, port)
	}
	type result struct {
		conn *net.TCPConn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and no other gets into the namespace
		err := enterNetwork(netns)
		var conn *net.TCPConn
		if err == nil {
			conn, err = dialLoopback(ctx, port)
		}
		done <- result{conn, err}
	}()
	got := <-done // not longer than the deadline
	return got.conn, got.err
}

func enterNetwork(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// dialLoopback tries one family after the other: the dialer would try both at the
// same time, in goroutines that are on other threads.
func dialLoopback(ctx context.Context, port string) (*net.TCPConn, error) {
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			return tcp, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// join copies between a connection and a stream, both ways, and closes the
// connection. What goes wrong on the way is an end like another: there is nobody
// left to tell.
func join(ctx context.Context, conn *net.TCPConn, stream io.ReadWriteCloser) {
	defer conn.Close()
	// What blocks on the connection ends with ctx. The caller sees to the stream's end.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	toPod, toClient := make(chan error, 1), make(chan error, 1)
	go func() { // ends with the stream
		_, err := io.Copy(conn, stream)
		if err == nil {
			err = conn.CloseWrite()
		}
		if err != nil && !deaf(err) {
			_ = conn.Close() // the client has gone in the middle of what it had to say
		}
		toPod <- err
	}()
	go func() { // ends with the connection
		_, err := io.Copy(stream, conn)
		if err == nil {
			err = stream.Close() // what we send; the client may still have something to say
		}
		toClient <- err
	}()
	select {
	case err := <-toClient:
		if err != nil {
			return
		}
	case <-ctx.Done():
		return
	}
	select {
	case <-toPod: //nolint:errcheck // how the other direction ended changes nothing
	case <-ctx.Done():
	}
}

// deaf says whether an error only means that the pod does not want to hear more;
// it may still have something to say.
func deaf(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ENOTCONN)
}
