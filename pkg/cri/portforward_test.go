package cri

import (
	"context"
	"io"
	"net"
	"strconv"
	"testing"
)

// client is one end of a forwarded connection, as a stream that can be half closed.
type client struct{ *net.TCPConn }

func (c client) Close() error { return c.CloseWrite() }

// forwarded connects a client to a server through dialIn and join.
func forwarded(t *testing.T, serve func(*net.TCPConn)) (c *net.TCPConn, done chan struct{}, cancel context.CancelFunc) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // nobody waits for it
	accept := func() *net.TCPConn {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		tcp, _ := c.(*net.TCPConn)
		return tcp
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far := accept()
	ctx, cancel := context.WithCancel(t.Context())
	pod, err := dialIn(ctx, "", port)
	if err != nil {
		t.Fatal(err)
	}
	go serve(accept())
	done = make(chan struct{})
	go func() { defer close(done); join(ctx, pod, client{far}); _ = far.Close() }()
	tcp, _ := near.(*net.TCPConn)
	return tcp, done, cancel
}

func TestForwardPassesEachEndOn(t *testing.T) {
	c, done, cancel := forwarded(t, func(s *net.TCPConn) {
		data, _ := io.ReadAll(s) // up to the client's end
		_, _ = io.WriteString(s, "got "+strconv.Itoa(len(data)))
		_ = s.Close()
	})
	defer cancel()
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(c)
	if err != nil || string(data) != "got 8" {
		t.Errorf("who has said all still gets the answer: %q, %v", data, err)
	}
	<-done
}

func TestForwardEndsWithItsRequest(t *testing.T) {
	ended := make(chan struct{})
	c, done, cancel := forwarded(t, func(s *net.TCPConn) {
		_, _ = io.ReadAll(s)
		close(ended)
	})
	defer c.Close()
	cancel()
	<-done
	<-ended
}

func TestForwardToNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := dialIn(t.Context(), "", port); err == nil {
		_ = c.Close()
		t.Error("a port that nobody listens on was connected to")
	}
}
