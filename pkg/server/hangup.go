package server

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync/atomic"
)

// watchClient makes the request's context end with its connection. For one that
// is upgraded net/http no longer does, and a command would outlive its client.
func watchClient(w http.ResponseWriter, r *http.Request) (*upgradeWriter, *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	return &upgradeWriter{ResponseWriter: w, cancel: cancel, bytes: &callOf(r).bytes}, r.WithContext(ctx)
}

// upgradeWriter hands out a connection that is watched.
type upgradeWriter struct {
	http.ResponseWriter
	cancel context.CancelFunc
	bytes  *atomic.Int64
	conn   *watchedConn // once it was handed out
}

// Hijack implements http.Hijacker.
func (u *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.conn = &watchedConn{Conn: conn, buffered: rw.Reader, cancel: u.cancel, bytes: u.bytes}
	return u.conn, bufio.NewReadWriter(bufio.NewReader(u.conn), rw.Writer), nil
}

// Flush implements http.Flusher.
func (u *upgradeWriter) Flush() {
	_ = http.NewResponseController(u.ResponseWriter).Flush() // who writes next learns of it
}

// end lets go of everything: the handler is done. A connection that was upgraded,
// or half so, is of no more use.
func (u *upgradeWriter) end() {
	u.cancel()
	if u.conn != nil {
		_ = u.conn.Close() // the client learns of it as of any other end
	}
}

// lastAnswer closes the connection after any answer but an upgrade. Whoever has
// asked for one through the API server could otherwise send more requests over
// what is the API server's own connection.
type lastAnswer struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (l *lastAnswer) WriteHeader(code int) {
	if code != http.StatusSwitchingProtocols {
		l.Header().Set("Connection", "close")
	}
	l.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (l *lastAnswer) Write(p []byte) (int, error) {
	l.Header().Set("Connection", "close") // unless WriteHeader was called before; then it is too late, and has no effect
	return l.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (l *lastAnswer) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// watchedConn cancels when reading fails. Both stream protocols always read.
type watchedConn struct {
	net.Conn
	buffered *bufio.Reader // what came with the request, then the connection
	cancel   context.CancelFunc
	bytes    *atomic.Int64
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.buffered.Read(p)
	c.bytes.Add(int64(n))
	if err != nil {
		c.cancel()
	}
	return n, err
}

func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.cancel()
	return c.Conn.Close()
}
