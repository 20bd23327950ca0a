package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Funcs is everything the routes can ask of the agent. All of them must be safe
// for concurrent use and honour their context. A nil func answers 501.
type Funcs struct {
	// Pods lists the pods of this node with their current status.
	Pods func(ctx context.Context) (*corev1.PodList, error)
	// WatchPods sends every pod once, then each change, until ctx ends or send fails.
	WatchPods func(ctx context.Context, send func(PodEvent) error) error
	// Events lists what happened to a pod, oldest first.
	Events func(ctx context.Context, namespace, pod string) (*corev1.EventList, error)
	// Logs writes a container's log.
	Logs func(ctx context.Context, q LogQuery, stdout, stderr io.Writer) error
	// Exec runs a command in a container; a non-zero exit is a
	// k8s.io/utils/exec.CodeExitError.
	Exec func(ctx context.Context, s Session) error
	// Attach connects to a container's main process.
	Attach func(ctx context.Context, s Session) error
	// Restart ends one container (or all, when container is empty) in place.
	Restart func(ctx context.Context, namespace, pod, container string) error
	// Cgroups, Inspect, Images, Problems and Node answer with a JSON document.
	Cgroups  func(ctx context.Context) (any, error)
	Inspect  func(ctx context.Context, namespace, pod string) (any, error)
	Images   func(ctx context.Context) (any, error)
	Problems func(ctx context.Context) (any, error)
	Node     func(ctx context.Context) (any, error)
}

// PodEvent is one line of a pod watch.
type PodEvent struct {
	// Type is ADDED, MODIFIED or DELETED, as in a Kubernetes watch.
	Type   string     `json:"type"`
	Object corev1.Pod `json:"object"`
}

// LogQuery says which log lines are wanted.
type LogQuery struct {
	Namespace, Pod, Container    string
	Follow, Previous, Timestamps bool
	Tail                         int64 // lines; negative means all
	Since                        time.Time
	LimitBytes                   int64 // 0 means no limit
}

// Server serves Funcs on a listener.
type Server struct {
	Funcs Funcs
	Log   *slog.Logger
}

// Run serves l until ctx ends, then closes it and waits a moment for answers in
// flight; streams are cut.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
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

// Handler returns the routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /pods", s.answer(s.pods))
	readers, sessions := make(quota, maxReaders), make(quota, maxSessions)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.answer(readers.wrap("readers of logs", s.logs)))
	for _, method := range []string{"GET", "POST"} { // WebSocket upgrades are GET, SPDY is POST
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", s.answer(sessions.wrap("sessions", s.exec)))
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", s.answer(sessions.wrap("sessions", s.attach)))
	}
	mux.HandleFunc("GET /nodeagent/v1/events/{namespace}/{pod}", s.answer(s.events))
	mux.HandleFunc("POST /nodeagent/v1/restart/{namespace}/{pod}", s.answer(s.restart))
	mux.HandleFunc("GET /nodeagent/v1/inspect/{namespace}/{pod}", s.answer(s.inspect))
	mux.HandleFunc("GET /nodeagent/v1/cgroups", s.answer(document(s.Funcs.Cgroups)))
	mux.HandleFunc("GET /nodeagent/v1/images", s.answer(document(s.Funcs.Images)))
	mux.HandleFunc("GET /nodeagent/v1/problems", s.answer(document(s.Funcs.Problems)))
	mux.HandleFunc("GET /nodeagent/v1/node", s.answer(document(s.Funcs.Node)))
	return mux
}

type handler func(w http.ResponseWriter, r *http.Request) error

// answer turns a handler's error into a status code; it is the only place that does.
func (s *Server) answer(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil || r.Context().Err() != nil {
			return
		}
		s.Log.Debug("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		http.Error(w, err.Error(), status(err))
	}
}

func (s *Server) pods(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Get("watch") != "" {
		return s.watchPods(w, r)
	}
	if s.Funcs.Pods == nil {
		return errNotServed
	}
	list, err := s.Funcs.Pods(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, list)
}

func (s *Server) watchPods(w http.ResponseWriter, r *http.Request) error {
	if s.Funcs.WatchPods == nil {
		return errNotServed
	}
	w.Header().Set("Content-Type", "application/json;stream=watch")
	flush := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	return s.Funcs.WatchPods(r.Context(), func(e PodEvent) error {
		if err := enc.Encode(e); err != nil {
			return err
		}
		return flush.Flush()
	})
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	if s.Funcs.Events == nil {
		return errNotServed
	}
	list, err := s.Funcs.Events(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		return err
	}
	return writeJSON(w, list)
}

func (s *Server) inspect(w http.ResponseWriter, r *http.Request) error {
	if s.Funcs.Inspect == nil {
		return errNotServed
	}
	doc, err := s.Funcs.Inspect(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		return err
	}
	return writeJSON(w, doc)
}

func (s *Server) restart(w http.ResponseWriter, r *http.Request) error {
	if s.Funcs.Restart == nil {
		return errNotServed
	}
	container := strings.TrimSpace(r.URL.Query().Get("container"))
	if err := s.Funcs.Restart(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), container); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// document serves what f returns as JSON.
func document(f func(context.Context) (any, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if f == nil {
			return errNotServed
		}
		doc, err := f(r.Context())
		if err != nil {
			return err
		}
		return writeJSON(w, doc)
	}
}

func writeJSON(w http.ResponseWriter, doc any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(doc)
}
