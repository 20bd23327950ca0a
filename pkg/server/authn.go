package server

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const (
	authenticatedGroup   = "system:authenticated"
	unauthenticatedGroup = "system:unauthenticated"
	anonymousUser        = "system:anonymous"
	// tokenProtocol is how browsers, which cannot set headers, send a token with a
	// WebSocket request: as one more protocol.
	tokenProtocol = "base64url.bearer.authorization.k8s.io."
	// reviewTimeout bounds one question to the API server with all its repetitions.
	reviewTimeout = 15 * time.Second
	reviewSteps   = 5
	reviewPause   = 500 * time.Millisecond
)

var errUnauthorized = &Error{Code: http.StatusUnauthorized, Message: "Unauthorized"}

// Auth says who may call the API, and what for.
type Auth struct {
	// NodeName is the node whose subresources callers need access to.
	NodeName string
	// ClientCAFile holds the CAs of client certificates; empty: none are taken.
	ClientCAFile string
	// TokenReview asks the API server whose token it is; nil: none are taken.
	TokenReview func(context.Context, *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error)
	// Anonymous lets callers without credentials in, as system:anonymous.
	Anonymous bool
	// TokenTTL is how long the answer to a TokenReview holds.
	TokenTTL time.Duration
	// AccessReview asks the API server what a caller may do; nil: whoever is
	// authenticated may do everything.
	AccessReview AccessReview
	// AllowTTL and DenyTTL are how long the answers to an AccessReview hold.
	AllowTTL, DenyTTL time.Duration
}

// caller is whose request it is.
type caller struct {
	authenticationv1.UserInfo
	// certificate says that a certificate of the cluster's CA showed it. The API
	// server, which speaks for all users, is one of these.
	certificate bool
}

// authn finds out whose request it is.
type authn struct {
	cfg    *Auth
	ca     *caFile
	tokens *memory[*authenticationv1.UserInfo] // nil: the token is nobody's
}

func newAuthn(cfg *Auth) *authn {
	a := &authn{cfg: cfg, tokens: newMemory[*authenticationv1.UserInfo]()}
	if cfg.ClientCAFile != "" {
		a.ca = &caFile{path: cfg.ClientCAFile}
	}
	return a
}

// caller returns whose request r is. The credentials are taken out of r. Whatever
// is wrong with them, the answer to the caller is the same.
func (a *authn) caller(r *http.Request) (*caller, error) {
	token := takeToken(r)
	var problem error
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && a.ca != nil {
		user, err := a.certificate(r.TLS.PeerCertificates)
		if err == nil {
			return &caller{UserInfo: *user, certificate: true}, nil
		}
		problem = err
	}
	switch {
	case token != "" && a.cfg.TokenReview != nil:
		user, err := a.token(r.Context(), token)
		if err != nil {
			return nil, errors.Join(errUnauthorized, problem, err)
		}
		return &caller{UserInfo: *user}, nil
	case token == "" && problem == nil && a.cfg.Anonymous:
		return &caller{UserInfo: authenticationv1.UserInfo{Username: anonymousUser, Groups: []string{unauthenticatedGroup}}}, nil
	}
	return nil, errors.Join(errUnauthorized, problem)
}

// certificate verifies a client's certificate; TLS has only asked for one, so that
// clients with a token can connect as well.
func (a *authn) certificate(chain []*x509.Certificate) (*authenticationv1.UserInfo, error) {
	roots, err := a.ca.certs()
	if err != nil {
		return nil, err
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	subject := chain[0].Subject
	if subject.CommonName == "" {
		return nil, errors.New("client certificate names nobody")
	}
	return &authenticationv1.UserInfo{Username: subject.CommonName, Groups: withGroup(subject.Organization)}, nil
}

func withGroup(groups []string) []string {
	if slices.Contains(groups, authenticatedGroup) {
		return groups
	}
	return append(slices.Clone(groups), authenticatedGroup)
}

// token asks whose token it is. No audience is named: the API server then takes
// tokens that are meant for itself, and no others.
func (a *authn) token(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	user, err := a.tokens.recall(ctx, []byte(token), func(ctx context.Context) (*authenticationv1.UserInfo, time.Duration, error) {
		review, err := retry(ctx, func(ctx context.Context) (*authenticationv1.TokenReview, error) {
			return a.cfg.TokenReview(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		})
		if err != nil {
			return nil, 0, fmt.Errorf("review token: %w", err)
		}
		if !review.Status.Authenticated {
			return nil, a.cfg.TokenTTL, nil
		}
		user := review.Status.User
		user.Groups = withGroup(user.Groups)
		return &user, a.cfg.TokenTTL, nil
	})
	if err == nil && user == nil {
		err = errors.New("token is not valid")
	}
	return user, err
}

// retry asks again when the API server could not answer just now.
func retry[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	pause := reviewPause
	for step := 1; ; step++ {
		answer, err := ask(ctx)
		if err == nil || step == reviewSteps || !passing(err) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(pause):
		}
		pause = pause * 3 / 2
	}
}

// passing says whether an error may be gone the next time.
func passing(err error) bool {
	_, later := apierrors.SuggestsClientDelay(err)
	return later || apierrors.IsInternalError(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err)
}

// takeToken takes a bearer token out of a request.
func takeToken(r *http.Request) string {
	if header := r.Header.Get("Authorization"); header != "" {
		r.Header.Del("Authorization")
		scheme, token, _ := strings.Cut(strings.TrimSpace(header), " ")
		if strings.EqualFold(scheme, "bearer") {
			return strings.TrimSpace(token)
		}
		return ""
	}
	const header = "Sec-Websocket-Protocol"
	var token string
	var others []string
	for p := range strings.SplitSeq(strings.Join(r.Header.Values(header), ","), ",") {
		p = strings.TrimSpace(p)
		encoded, found := strings.CutPrefix(p, tokenProtocol)
		switch {
		case found && token == "":
			if data, err := base64.RawURLEncoding.DecodeString(encoded); err == nil {
				token = string(data)
			}
		case p != "":
			others = append(others, p)
		}
	}
	if token != "" {
		r.Header.Set(header, strings.Join(others, ", "))
		if len(others) == 0 {
			r.Header.Del(header)
		}
	}
	return token
}
