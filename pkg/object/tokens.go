package object

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

const (
	// A token is refreshed at this part of its life, and at the latest at this age.
	// Some time earlier, in fact: the tokens of many pods are not all refreshed at once.
	refreshPercent = 80
	refreshAge     = 24 * time.Hour
	refreshJitter  = 10 * time.Second

	firstTokenRetry = 10 * time.Second
	lastTokenRetry  = 2 * time.Minute
)

// tokenKey is what makes one token another than the next.
type tokenKey struct {
	pod      types.UID
	audience string
	seconds  int64
}

// token is what a pod shows to prove who it is.
type token struct {
	value    string
	refresh  time.Time
	failures int // to refresh it, since it was
	told     bool
}

// Token is a token of the pod's service account for one audience, which is the API
// server's own if empty. It is bound to the pod: the API server takes it for
// invalid when the pod is gone. One that cannot be refreshed is served on, until
// the API server is back.
func (s *Store) Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) ([]byte, error) {
	k := tokenKey{pod.UID, p.Audience, ptr.Deref(p.ExpirationSeconds, 3600)}
	s.mu.Lock()
	if s.pods[pod.UID] == nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("token of service account %q: %w", pod.Spec.ServiceAccountName, errNotReferred)
	}
	if t := s.tokens[k]; t != nil && time.Now().Before(t.refresh) {
		s.mu.Unlock()
		return []byte(t.value), nil
	}
	s.mu.Unlock()
	asked := time.Now()
	value, life, err := s.RequestToken(ctx, pod, p.Audience, k.seconds)
	if err != nil {
		return s.oldToken(k, fmt.Errorf("fetch token of service account %q: %w", pod.Spec.ServiceAccountName, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods[pod.UID] != nil {
		s.tokens[k] = &token{value: value, refresh: refreshAt(asked, life)}
		s.signal()
	}
	return []byte(value), nil
}

// refreshAt is when a token is to be replaced. It is counted from when it was asked
// for, and not from what the server's clock says, which may be another.
func refreshAt(asked time.Time, life time.Duration) time.Time {
	jitter := min(refreshJitter, life/10)
	return asked.Add(min(life*refreshPercent/100, refreshAge) - rand.N(jitter+1))
}

// oldToken is the token as it was, with the next try in a while. Without one there
// is only err.
func (s *Store) oldToken(k tokenKey, err error) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[k]
	if t == nil {
		return nil, err
	}
	if t.failures == 0 {
		s.cfg.Log.Warn("token not refreshed; the old one is used on", "uid", k.pod, "audience", k.audience, "err", err)
	}
	t.refresh = time.Now().Add(min(firstTokenRetry<<min(t.failures, 8), lastTokenRetry))
	t.failures++
	t.told = false
	s.signal()
	return []byte(t.value), nil
}

// RequestToken asks for a token that nobody keeps.
func (s *Store) RequestToken(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (value string, life time.Duration, err error) {
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		req.Spec.Audiences = []string{audience}
	}
	var got *authenticationv1.TokenRequest
	err = s.patiently(ctx, func(ctx context.Context) error {
		got, err = s.cfg.Core.ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, req, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return "", 0, err
	}
	life = time.Duration(ptr.Deref(got.Spec.ExpirationSeconds, seconds)) * time.Second
	return got.Status.Token, life, nil
}

// patiently asks again for a while what is refused: for a moment after a pod was
// bound, the API server may not know yet what that gives the node a right to.
func (s *Store) patiently(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	end := time.Now().Add(patience)
	for failures := 1; ; failures++ {
		err := ask(ctx)
		d := delay(failures)
		if !apierrors.IsForbidden(err) || time.Now().Add(d).After(end) || ctx.Err() != nil {
			return err
		}
		pause(ctx, d)
	}
}

// nextRefresh is when the first token is due.
func (s *Store) nextRefresh() (next time.Time, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if !t.told && (!some || t.refresh.Before(next)) {
			next, some = t.refresh, true
		}
	}
	return next, some
}

// due are the pods whose tokens are to be refreshed. Each is told of once: its
// volumes then ask for the token.
func (s *Store) due(now time.Time) []types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []types.UID
	for k, t := range s.tokens {
		if !t.told && !now.Before(t.refresh) {
			t.told = true
			out = append(out, k.pod)
		}
	}
	return out
}

// refreshFailed makes tokens due now that could not be refreshed before.
func (s *Store) refreshFailed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if t.failures > 0 {
			t.refresh, t.told = time.Now(), false
		}
	}
	s.signal()
}
