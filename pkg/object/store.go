package object

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	certificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// patience is how long a lookup waits for the first answer of the API server.
const patience = 5 * time.Second

// keptPatience is how long it waits when it has what an earlier agent knew.
const keptPatience = time.Second

var errNotReferred = errors.New("the pod is not one of the API server's on this node, or does not refer to it")

// Config is all that a Store needs.
type Config struct {
	NodeName     string
	Core         corev1client.CoreV1Interface
	Certificates certificatesv1.CertificatesV1Interface
	// KeepDir holds what is known, for the next agent; secrets only if it is in
	// memory. Empty keeps nothing.
	KeepDir string
	// Wake is told of each pod that something has changed for. It must not block.
	Wake func(uid types.UID)
	Log  *slog.Logger
}

// Store serves the newest state of what pods refer to. Its methods are safe for
// concurrent use.
type Store struct {
	cfg     Config
	gate    *gate
	keep    keeper
	changed chan struct{} // capacity 1: Run has watches to open, or alarms to set anew

	mu      sync.Mutex // guards all below, and what the watches hold; never held across I/O
	pods    map[types.UID]map[key]bool
	watches map[key]*watched
	tokens  map[tokenKey]*token
}

// New starts nothing; see Run.
func New(cfg Config) *Store {
	return &Store{
		cfg: cfg, gate: newGate(), keep: keeper{dir: cfg.KeepDir, log: cfg.Log}, changed: make(chan struct{}, 1),
		watches: map[key]*watched{}, tokens: map[tokenKey]*token{},
	}
}

// SetPods says which pods the API server has for this node. It comes before
// anything of a new pod is looked up. A pod that has ended needs nothing any more.
// It is not called twice at once.
func (s *Store) SetPods(pods []*corev1.Pod) {
	s.mu.Lock()
	first := s.pods == nil
	now := make(map[types.UID]map[key]bool, len(pods))
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			now[pod.UID] = references(pod)
		}
	}
	for uid, refs := range now {
		for k := range refs {
			s.use(k, uid)
		}
	}
	for uid, refs := range s.pods {
		for k := range refs {
			if !now[uid][k] {
				s.release(k, uid)
			}
		}
	}
	maps.DeleteFunc(s.tokens, func(k tokenKey, _ *token) bool { return now[k.pod] == nil })
	s.pods = now
	wanted := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	if first {
		s.keep.tidy(wanted)
	}
	s.signal()
}

// use adds a pod to a watch. The caller holds mu.
func (s *Store) use(k key, uid types.UID) {
	w := s.watches[k]
	if w == nil {
		w = &watched{key: k, users: map[types.UID]bool{}, answered: make(chan struct{}), again: make(chan struct{}, 1)}
		s.watches[k] = w
	}
	if !w.users[uid] {
		w.users[uid] = true
		w.poke() // an object that cannot change may have been replaced by another
	}
}

// release takes a pod from a watch, and ends the watch with the last one. The
// caller holds mu.
func (s *Store) release(k key, uid types.UID) {
	w := s.watches[k]
	delete(w.users, uid)
	if len(w.users) > 0 {
		return
	}
	delete(s.watches, k)
	if w.cancel != nil {
		w.cancel()
	}
}

func (s *Store) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends, and returns when every watch has been closed.
func (s *Store) Run(ctx context.Context) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		s.open(ctx, &open)
		var alarm <-chan time.Time
		if next, some := s.nextRefresh(); some {
			alarm = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		case <-alarm:
			s.wake(s.due(time.Now()))
		}
	}
}

// open starts the watches that are wanted and not there yet.
func (s *Store) open(ctx context.Context, open *sync.WaitGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		if w.cancel != nil {
			continue
		}
		var life context.Context
		life, w.cancel = context.WithCancel(ctx)
		open.Go(func() { s.follow(life, w) })
	}
}

func (s *Store) wake(uids []types.UID) {
	for _, uid := range uids {
		s.cfg.Wake(uid)
	}
}

// lookUp is what a watch has found, once it has found anything.
func (s *Store) lookUp(ctx context.Context, pod *corev1.Pod, k key) (map[string]metav1.Object, error) {
	s.mu.Lock()
	w := s.watches[k]
	if w == nil || !w.users[pod.UID] {
		s.mu.Unlock()
		return nil, errNotReferred
	}
	s.mu.Unlock()
	kept := w.recall(s.keep)
	wait := patience
	if kept != nil {
		wait = keptPatience
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-w.answered:
	case <-late.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.items == nil {
		w.wanted = true
		if kept != nil {
			return kept, nil
		}
		if w.err == nil {
			return nil, errors.New("the API server has not answered yet")
		}
		return nil, w.err
	}
	w.served = true
	return w.items, nil
}

// one is a single object. An error that matches fs.ErrNotExist says that the API
// server has none.
func (s *Store) one(ctx context.Context, pod *corev1.Pod, k key, name string) (metav1.Object, error) {
	items, err := s.lookUp(ctx, pod, k)
	if err != nil {
		return nil, fmt.Errorf("%s %q of the API server: %w", k.kind, name, err)
	}
	if o := items[name]; o != nil {
		return o, nil
	}
	return nil, notFoundError{k.kind, strconv.Quote(name)}
}

// notFoundError reads as the API server's own.
type notFoundError struct {
	kind kind
	name string // as it is to be shown
}

func (e notFoundError) Error() string        { return fmt.Sprintf("%s %s not found", e.kind, e.name) }
func (e notFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// ConfigMap is one of the pod's namespace, to which the pod refers.
func (s *Store) ConfigMap(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error) {
	o, err := s.one(ctx, pod, named(configMaps, pod.Namespace, name), name)
	if err != nil {
		return nil, err
	}
	return o.(*corev1.ConfigMap), nil
}

// Secret is one of the pod's namespace, to which the pod refers.
func (s *Store) Secret(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error) {
	o, err := s.one(ctx, pod, named(secrets, pod.Namespace, name), name)
	if err != nil {
		return nil, err
	}
	return o.(*corev1.Secret), nil
}

// sorted lists the objects of a watch by name.
func sorted[T metav1.Object](items map[string]metav1.Object) []T {
	var out []T
	for _, o := range items {
		out = append(out, o.(T))
	}
	slices.SortFunc(out, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}
