package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"time"
)

// maxBody is how long the body of a request may be, in bytes. None of the routes
// has a use for one.
const maxBody = 1 << 20

// API serves the routes to the cluster, over TLS, to those whom Auth lets.
type API struct {
	Funcs Funcs
	Auth  Auth
	// Certificate is the one to show to a client.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// MinVersion and CipherSuites are as in tls.Config; 0 and none are TLS 1.2 and
	// those that are good today.
	MinVersion   uint16
	CipherSuites []uint16
	// StreamIdle ends a stream on which nothing happens for so long.
	StreamIdle time.Duration
	// NoDebugging leaves out logs, exec and the like.
	NoDebugging bool
	Log         *slog.Logger
}

// Run serves l until ctx ends, then closes it and waits a moment for answers in
// flight; streams are cut.
func (a *API) Run(ctx context.Context, l net.Listener) error {
	srv := newHTTPServer(ctx, a.Handler(), a.Log)
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if t, ok := c.(*tls.Conn); ok {
			return context.WithValue(ctx, visitorKey{}, t.NetConn())
		}
		return ctx
	}
	return serve(ctx, srv, tls.NewListener(newDoor(l), a.tlsConfig()))
}

type visitorKey struct{}

// SecureSuites are the cipher suites for TLS 1.2 with forward secrecy and
// authenticated encryption. Those of TLS 1.3 all have both.
func SecureSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

func (a *API) tlsConfig() *tls.Config {
	cfg := &tls.Config{
		GetCertificate: a.Certificate,
		// Asked for and not required: a client may have a token instead. The handler
		// verifies it.
		ClientAuth:   tls.RequestClientCert,
		MinVersion:   max(a.MinVersion, tls.VersionTLS12),
		CipherSuites: a.CipherSuites,
		NextProtos:   []string{"http/1.1"}, // upgrades need it
		// A resumed session would bring back a certificate that was verified long ago.
		SessionTicketsDisabled: true,
	}
	if len(cfg.CipherSuites) == 0 {
		cfg.CipherSuites = SecureSuites()
	}
	return cfg
}

// Handler returns the routes for the cluster, behind authentication and
// authorization.
func (a *API) Handler() http.Handler {
	svc := &service{
		Funcs: a.Funcs, log: a.Log, idle: a.StreamIdle,
		sessions: &places{what: "sessions", total: maxSessions, perCaller: maxSessionsOfCaller, perObject: maxSessionsOfPod},
		readers:  &places{what: "readers of logs", total: maxReaders, perCaller: maxReadersOfCaller, perObject: maxReadersOfOne},
	}
	var routes []route
	for _, r := range svc.routes() {
		if len(r.subresources) > 0 && (!r.debugging || !a.NoDebugging) {
			routes = append(routes, r)
		}
	}
	authz := newAuthz(&a.Auth)
	m := mux(routes, func(r route) http.HandlerFunc { return svc.guard(authz, r) })
	return svc.authenticate(newAuthn(&a.Auth), m)
}

// authenticate lets requests through whose caller is known.
func (s *service) authenticate(authn *authn, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			w = &lastAnswer{w}
		}
		c, err := authn.caller(r)
		if err == nil {
			if v, ok := r.Context().Value(visitorKey{}).(*visitor); ok {
				err = v.recognise()
			}
		}
		if err == nil {
			err = acceptable(r)
		}
		if err != nil {
			s.log.Debug("request refused", "source", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "err", err)
			w.Header().Set("Connection", "close")
			fail(w, public(err))
			return
		}
		next.ServeHTTP(w, withCall(r, &call{caller: c, begin: time.Now()}))
	})
}

// public is what a caller that is not known yet may learn of an error.
func public(err error) error {
	if status(err) == http.StatusUnauthorized {
		return errUnauthorized
	}
	return err
}

// acceptable refuses what could be taken for something else than it is: the
// decision on who may do it is made on the path as it stands.
func acceptable(r *http.Request) error {
	p := r.URL.Path
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	switch {
	case r.Method == http.MethodConnect || r.URL.Host != "" || clean != p || r.URL.EscapedPath() != p:
		return BadRequest("the path of the request is not in canonical form")
	case r.ContentLength > maxBody:
		return &Error{Code: http.StatusRequestEntityTooLarge, Message: "the body of the request is too long"}
	}
	return nil
}

// guard serves a route to those who may use it.
func (s *service) guard(authz *authz, r route) http.HandlerFunc {
	return s.answer(func(w http.ResponseWriter, req *http.Request) (err error) {
		c := callOf(req)
		verb := r.verb
		if verb == "" {
			verb = verbOf(req.Method)
		}
		decision := "deny"
		if r.audited {
			defer func() { c.audit(s.log, req, strings.SplitN(req.URL.Path, "/", 3)[1], decision) }()
		}
		if err := authz.allow(req.Context(), c.caller, verb, r.subresources); err != nil {
			return err
		}
		decision = "allow"
		return r.serve(w, req)
	})
}
