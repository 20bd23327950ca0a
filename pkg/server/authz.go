package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
)

// AccessReview asks the API server what somebody may do.
type AccessReview func(context.Context, *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error)

// authz decides what a caller may do.
type authz struct {
	cfg     *Auth
	answers *memory[bool]
}

func newAuthz(cfg *Auth) *authz { return &authz{cfg: cfg, answers: newMemory[bool]()} }

// allow is nil when the caller may use the verb on one of the node's subresources.
func (a *authz) allow(ctx context.Context, c *caller, verb string, subresources []string) error {
	if a.cfg.AccessReview == nil {
		return nil
	}
	for _, s := range subresources {
		allowed, err := a.ask(ctx, c, verb, s)
		if err != nil {
			return fmt.Errorf("Authorization error (user=%s, verb=%s, resource=nodes, subresource(s)=%v): %w", c.Username, verb, subresources, err) //nolint:staticcheck // the kubelet's words
		}
		if allowed {
			return nil
		}
	}
	return &Error{Code: http.StatusForbidden, Message: fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", c.Username, verb, subresources)}
}

func (a *authz) ask(ctx context.Context, c *caller, verb, subresource string) (bool, error) {
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: c.Username, UID: c.UID, Groups: c.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: subresource, Name: a.cfg.NodeName},
	}
	if len(c.Extra) > 0 {
		spec.Extra = map[string]authorizationv1.ExtraValue{}
		for k, v := range c.Extra {
			spec.Extra[k] = authorizationv1.ExtraValue(v)
		}
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return false, err
	}
	return a.answers.recall(ctx, text, func(ctx context.Context) (bool, time.Duration, error) {
		review, err := retry(ctx, func(ctx context.Context) (*authorizationv1.SubjectAccessReview, error) {
			return a.cfg.AccessReview(ctx, &authorizationv1.SubjectAccessReview{Spec: spec})
		})
		switch {
		case err != nil:
			return false, 0, fmt.Errorf("review access: %w", err)
		case review.Status.Allowed && !review.Status.Denied:
			return true, a.cfg.AllowTTL, nil
		case review.Status.EvaluationError != "":
			return false, 0, nil // it may have come out otherwise
		default:
			return false, a.cfg.DenyTTL, nil
		}
	})
}

// verbOf is the verb that a method stands for.
func verbOf(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	default:
		return "get"
	}
}
