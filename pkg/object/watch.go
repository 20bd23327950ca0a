package object

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

const (
	// listTimeout bounds one answer of the API server.
	listTimeout = 30 * time.Second
	// firstDelay and lastDelay bound the pause after an answer that is not the one
	// that was asked for.
	firstDelay = 200 * time.Millisecond
	lastDelay  = 30 * time.Second
	// shortWatch is a watch that ended too soon to be opened again at once.
	shortWatch = 5 * time.Second
)

// watched is what one key stands for, kept up to date by Store.follow.
type watched struct {
	key      key
	answered chan struct{} // closed when items is known
	again    chan struct{} // capacity 1: list once more what is not watched

	kept     map[string]metav1.Object // by an earlier agent; see recall
	recalled sync.Once

	// Store.mu guards all below.
	users  map[types.UID]bool
	cancel context.CancelFunc       // nil until the watch has been opened
	items  map[string]metav1.Object // by name; nil until the API server has answered; replaced whole
	err    error                    // why it has not
	served bool                     // somebody has seen items
	wanted bool                     // somebody has asked in vain
}

func (w *watched) poke() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// recall is what an earlier agent knew.
func (w *watched) recall(k keeper) map[string]metav1.Object {
	w.recalled.Do(func() {
		select {
		case <-w.answered: // nobody needs it
		default:
			w.kept = k.load(w.key)
		}
	})
	return w.kept
}

// forget drops what is kept when no pod needs it any more. When the agent ends it
// stays.
func (s *Store) forget(w *watched) {
	s.mu.Lock()
	_, wanted := s.watches[w.key]
	s.mu.Unlock()
	if !wanted {
		s.keep.drop(w.key)
	}
}

// follow keeps one watch going until ctx ends.
//
//	list ─► watch ─► closed in good order: watch from where it ended
//	  ▲               version too old: list
//	  └── any failure: pause; what is known stays
func (s *Store) follow(ctx context.Context, w *watched) {
	defer s.forget(w)
	version, failures := "", 0
	for ctx.Err() == nil {
		begin := time.Now()
		var err error
		if version, err = s.session(ctx, w, version); ctx.Err() != nil {
			return
		}
		switch {
		case err == nil && time.Since(begin) > shortWatch:
			failures = 0
			continue
		case err != nil:
			s.failed(w, err)
		}
		failures++
		if away(err) {
			s.gate.shut()
			s.gate.pass(ctx)
			continue
		}
		pause(ctx, delay(failures))
	}
}

// failed notes why nothing is known; what is known is not touched.
func (s *Store) failed(w *watched, err error) {
	s.cfg.Log.Debug("object is not followed for now", "kind", w.key.kind, "namespace", w.key.namespace, "selector", w.key.fields, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.err = err
}

// delay grows with the number of failures. It is spread, so that many do not come
// at once.
func delay(failures int) time.Duration {
	d := firstDelay
	for range failures - 1 {
		if d = 2 * d; d >= lastDelay {
			d = lastDelay
			break
		}
	}
	return d/2 + rand.N(d/2+1)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// away says whether an error is of the API server as a whole, and not its answer.
func away(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err != nil
	}
	return apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err)
}

// session lists if there is no version to go on from, and then watches. It returns
// the version to go on from, which is empty when that is not known.
func (s *Store) session(ctx context.Context, w *watched, version string) (string, error) {
	if version == "" {
		var err error
		if version, err = s.list(ctx, w); err != nil {
			return "", err
		}
		s.answers()
	}
	for s.immutable(w) {
		select {
		case <-ctx.Done():
			return "", nil
		case <-w.again:
		}
		var err error
		if version, err = s.list(ctx, w); err != nil {
			return "", err
		}
	}
	stream, err := s.access(w.key).watch(ctx, w.key.options(version))
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return "", nil
	}
	if err != nil {
		return version, fmt.Errorf("watch: %w", err)
	}
	defer stream.Stop()
	s.answers()
	for e := range stream.ResultChan() {
		if e.Type == watch.Error {
			err := apierrors.FromObject(e.Object)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				return "", nil
			}
			return "", fmt.Errorf("watch: %w", err)
		}
		o, err := meta.Accessor(e.Object)
		if err != nil {
			return "", fmt.Errorf("watch: %w", err)
		}
		version = o.GetResourceVersion()
		s.apply(w, e.Type, o)
		if s.immutable(w) {
			return "", nil
		}
	}
	return version, nil
}

func (k key) options(version string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: k.fields, LabelSelector: k.labels, ResourceVersion: version}
}

func (s *Store) list(ctx context.Context, w *watched) (version string, err error) {
	select {
	case <-w.again: // whoever has come by now sees what is listed
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list, err := s.access(w.key).list(ctx, w.key.options(""))
	if err != nil {
		return "", err
	}
	at, err := meta.ListAccessor(list)
	if err != nil {
		return "", err
	}
	found, err := meta.ExtractList(list)
	if err != nil {
		return "", err
	}
	items := make(map[string]metav1.Object, len(found))
	for _, f := range found {
		o, err := meta.Accessor(f)
		if err != nil {
			return "", err
		}
		items[o.GetName()] = o
	}
	s.replace(w, items)
	return at.GetResourceVersion(), nil
}

// apply brings one change of a watch into its items.
func (s *Store) apply(w *watched, change watch.EventType, o metav1.Object) {
	s.mu.Lock()
	items := maps.Clone(w.items)
	s.mu.Unlock()
	if change == watch.Deleted {
		delete(items, o.GetName())
	} else {
		items[o.GetName()] = o
	}
	s.replace(w, items)
}

// replace makes items what is known, and wakes those who know something else.
func (s *Store) replace(w *watched, items map[string]metav1.Object) {
	for _, o := range items {
		o.SetManagedFields(nil) // nobody asks for them, and they are most of a small object
	}
	s.mu.Lock()
	first, news := w.items == nil, !maps.EqualFunc(w.items, items, sameVersion)
	w.items, w.err = items, nil
	var uids []types.UID
	if w.wanted || w.served && news && w.key.kind != services { // variables of a container that runs stay as they are
		uids = slices.Collect(maps.Keys(w.users))
		w.wanted = false
	}
	s.mu.Unlock()
	if first {
		close(w.answered)
	}
	if first || news {
		s.keep.save(w.key, items)
	}
	s.wake(uids)
}

func sameVersion(a, b metav1.Object) bool {
	return a.GetUID() == b.GetUID() && a.GetResourceVersion() == b.GetResourceVersion()
}

// immutable says whether what is known can no longer change.
func (s *Store) immutable(w *watched) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(w.items) != 1 {
		return false
	}
	for _, o := range w.items {
		switch o := o.(type) {
		case *corev1.ConfigMap:
			return ptr.Deref(o.Immutable, false)
		case *corev1.Secret:
			return ptr.Deref(o.Immutable, false)
		}
	}
	return false
}

// access is how objects of a kind are read.
type access struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// client is the part that all typed clients have in common.
type client[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func accessBy[L runtime.Object](c client[L]) access {
	return access{
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return c.List(ctx, o) },
		watch: c.Watch,
	}
}

func (s *Store) access(k key) access {
	switch k.kind {
	case configMaps:
		return accessBy(s.cfg.Core.ConfigMaps(k.namespace))
	case secrets:
		return accessBy(s.cfg.Core.Secrets(k.namespace))
	case services:
		return accessBy(s.cfg.Core.Services(k.namespace))
	case trustBundles:
		return accessBy(s.cfg.Certificates.ClusterTrustBundles())
	default:
		panic(fmt.Sprintf("object: unknown kind %q", k.kind))
	}
}

// answers notes that the API server is there. If it was away, tokens that could not
// be refreshed are due at once.
func (s *Store) answers() {
	if s.gate.opened() {
		s.refreshFailed()
	}
}
