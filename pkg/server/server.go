package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 90 * time.Second
	maxHeaderBytes = 64 << 10
)

// Server serves all routes on a listener that only those can reach who may do
// everything.
type Server struct {
	Funcs Funcs
	Log   *slog.Logger
}

// Run serves l until ctx ends, then closes it and waits a moment for answers in
// flight; streams are cut.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	return serve(ctx, newHTTPServer(ctx, s.Handler(), s.Log), l)
}

// Handler returns the routes.
func (s *Server) Handler() http.Handler {
	svc := &service{
		Funcs: s.Funcs, log: s.Log, idle: streamIdleTimeout,
		sessions: &places{what: "sessions", total: maxSessions}, readers: &places{what: "readers of logs", total: maxReaders},
	}
	return mux(svc.routes(), func(r route) http.HandlerFunc { return svc.answer(r.serve) })
}

// ServeHealth serves nothing but the agent's health, to everybody, until ctx ends.
func (s *Server) ServeHealth(ctx context.Context, l net.Listener) error {
	svc := &service{Funcs: s.Funcs, log: s.Log}
	m := http.NewServeMux()
	for _, path := range []string{"/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"} {
		m.HandleFunc("GET "+path, svc.answer(svc.healthz))
	}
	srv := newHTTPServer(ctx, m, s.Log)
	srv.ReadTimeout, srv.WriteTimeout = headerTimeout, 3*headerTimeout
	return serve(ctx, srv, l)
}

func newHTTPServer(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func serve(ctx context.Context, srv *http.Server, l net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close() // a stream that outlives the grace period is cut
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
