package server

import (
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Subresources of a node to which access is granted.
const (
	proxy   = "proxy"
	metrics = "metrics"
)

// service is the handlers with what they share.
type service struct {
	Funcs
	log *slog.Logger
	// idle ends a stream on which nothing happens for so long.
	idle              time.Duration
	sessions, readers *places
}

// route is one thing that can be asked for.
type route struct {
	methods  []string
	patterns []string
	// subresources are those of the node of which the caller needs one. Without any
	// the route is not for the network.
	subresources []string
	// verb is what the caller needs it for; empty: what the method stands for. What
	// runs commands is always create: as a WebSocket its method is GET, and who may
	// look at things may not run any.
	verb string
	// debugging is what enableDebuggingHandlers switches; audited has a line in the log.
	debugging, audited bool
	serve              handler
}

type handler func(w http.ResponseWriter, r *http.Request) error

// routes is everything that can be asked for.
func (s *service) routes() []route {
	get, post, both := []string{"GET"}, []string{"POST"}, []string{"GET", "POST"} // WebSocket upgrades are GET, SPDY is POST
	container := func(verb string) []string {
		return []string{"/" + verb + "/{namespace}/{pod}/{container}", "/" + verb + "/{namespace}/{pod}/{uid}/{container}"}
	}
	pod := func(verb string) []string {
		return []string{"/" + verb + "/{namespace}/{pod}", "/" + verb + "/{namespace}/{pod}/{uid}"}
	}
	only := func(subresources ...string) []string { return subresources }
	return []route{
		{methods: get, patterns: []string{"/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"}, subresources: only("healthz", proxy), serve: s.healthz},
		{methods: get, patterns: []string{"/pods", "/pods/{$}"}, subresources: only("pods", proxy), serve: s.pods},
		{methods: get, patterns: []string{"/runningpods", "/runningpods/{$}"}, subresources: only("pods", proxy), debugging: true, serve: document(s.RunningPods)},
		{methods: get, patterns: []string{"/configz"}, subresources: only("configz", proxy), serve: document(s.Config)},
		{methods: get, patterns: []string{"/stats/summary"}, subresources: only("stats"), serve: s.summary},
		{methods: get, patterns: []string{"/metrics"}, subresources: only(metrics), serve: foreign(s.Metrics)},
		{methods: get, patterns: []string{"/metrics/resource"}, subresources: only(metrics), serve: foreign(s.ResourceMetrics)},
		{methods: get, patterns: []string{"/metrics/probes"}, subresources: only(metrics), serve: foreign(s.ProbeMetrics)},
		{methods: get, patterns: []string{"/metrics/cadvisor"}, subresources: only(metrics), serve: foreign(s.ContainerMetrics)},

		{methods: get, patterns: []string{"/containerLogs/{namespace}/{pod}/{container}"}, subresources: only(proxy), debugging: true, audited: true, serve: s.logs},
		{methods: both, patterns: container("exec"), subresources: only(proxy), verb: "create", debugging: true, audited: true, serve: s.exec},
		{methods: both, patterns: container("attach"), subresources: only(proxy), verb: "create", debugging: true, audited: true, serve: s.attach},
		{methods: post, patterns: container("run"), subresources: only(proxy), verb: "create", debugging: true, audited: true, serve: s.run},
		{methods: both, patterns: pod("portForward"), subresources: only(proxy), verb: "create", debugging: true, audited: true, serve: s.portForward},

		{methods: get, patterns: []string{"/nodeagent/v1/events/{namespace}/{pod}"}, subresources: only(proxy), serve: s.events},
		{methods: post, patterns: []string{"/nodeagent/v1/restart/{namespace}/{pod}"}, subresources: only(proxy), verb: "create", serve: s.restart},
		{methods: get, patterns: []string{"/nodeagent/v1/inspect/{namespace}/{pod}"}, subresources: only(proxy), serve: s.inspect},
		{methods: get, patterns: []string{"/nodeagent/v1/cgroups"}, subresources: only(proxy), serve: document(s.Cgroups)},
		{methods: get, patterns: []string{"/nodeagent/v1/images"}, subresources: only(proxy), serve: document(s.Images)},
		{methods: get, patterns: []string{"/nodeagent/v1/problems"}, subresources: only(proxy), serve: document(s.Problems)},
		{methods: get, patterns: []string{"/nodeagent/v1/node"}, subresources: only(proxy), serve: document(s.Node)},
		{methods: get, patterns: []string{"/nodeagent/v1/watch"}, serve: s.watchPods},
	}
}

// mux binds routes to what wrap makes of them.
func mux(routes []route, wrap func(route) http.HandlerFunc) *http.ServeMux {
	m := http.NewServeMux()
	for _, r := range routes {
		h := wrap(r)
		for _, method := range r.methods {
			for _, pattern := range r.patterns {
				m.HandleFunc(method+" "+pattern, h)
			}
		}
	}
	return m
}

// answer turns a handler's error into a status code; it is the only place that does.
func (s *service) answer(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil || r.Context().Err() != nil {
			return
		}
		s.log.Debug("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		fail(w, err)
	}
}

func (s *service) healthz(w http.ResponseWriter, r *http.Request) error {
	if s.Healthy != nil {
		if err := s.Healthy(r.Context()); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "ok")
	return err
}
