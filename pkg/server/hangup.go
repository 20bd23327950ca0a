package server

import (
	"bufio"
	"context"
	"net"
	"net/http"
)

// watchClient makes the request's context end with its connection. For one that
// is upgraded net/http no longer does, and a command would outlive its client.
func watchClient(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	return &upgradeWriter{ResponseWriter: w, cancel: cancel}, r.WithContext(ctx)
}

// upgradeWriter hands out a connection that is watched.
type upgradeWriter struct {
	http.ResponseWriter
	cancel context.CancelFunc
}

// Hijack implements http.Hijacker.
func (u *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	watched := &watchedConn{Conn: conn, buffered: rw.Reader, cancel: u.cancel}
	return watched, bufio.NewReadWriter(bufio.NewReader(watched), rw.Writer), nil
}

// Flush implements http.Flusher.
func (u *upgradeWriter) Flush() {
	_ = http.NewResponseController(u.ResponseWriter).Flush() // who writes next learns of it
}

// watchedConn cancels when reading fails. Both stream protocols always read.
type watchedConn struct {
	net.Conn
	buffered *bufio.Reader // what came with the request, then the connection
	cancel   context.CancelFunc
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.buffered.Read(p)
	if err != nil {
		c.cancel()
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.cancel()
	return c.Conn.Close()
}
