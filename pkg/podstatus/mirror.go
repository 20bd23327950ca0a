package podstatus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// ReasonMirror is of the event that says why a static pod has no mirror pod.
const ReasonMirror = "FailedMirrorPod"

// Mirrors keeps a pod in the API server for each static pod of this node, so that
// users of the cluster see it. A static pod has its own life: what becomes of its
// mirror changes nothing for it.
//
// It is safe for concurrent use. See NewMirrors.
type Mirrors struct {
	cfg  MirrorsConfig
	wake chan struct{} // capacity 1

	held map[string]heldMirror // by step; of Run alone

	mu       sync.Mutex // guards all below; not held across I/O
	static   []*corev1.Pod
	observed []*corev1.Pod
	reported struct{ static, observed bool }
}

// MirrorsConfig is all that Mirrors needs.
type MirrorsConfig struct {
	Client corev1client.PodsGetter
	// NodeUID asks for the UID of this node's object, which owns the mirrors; an
	// error says that there is none yet.
	NodeUID func(context.Context) (types.UID, error)
	// Living are static pods that there are still, with or without a manifest.
	Living func() []*corev1.Pod
	// Event is told once why a pod is not mirrored.
	Event func(pod *corev1.Pod, reason, message string)
	Log   *slog.Logger
}

// heldMirror is a step that failed, and when it may be tried again.
type heldMirror struct {
	failures int
	until    time.Time
	told     string
}

// NewMirrors returns Mirrors that do nothing until Run.
func NewMirrors(cfg MirrorsConfig) *Mirrors {
	return &Mirrors{cfg: cfg, wake: make(chan struct{}, 1), held: map[string]heldMirror{}}
}

// SetStatic takes the full list of static pods.
func (m *Mirrors) SetStatic(pods []*corev1.Pod) {
	m.mu.Lock()
	m.static, m.reported.static = pods, true
	m.mu.Unlock()
	m.Poke()
}

// Observe takes the full list of mirror pods in the API server.
func (m *Mirrors) Observe(mirrors []*corev1.Pod) {
	m.mu.Lock()
	m.observed, m.reported.observed = mirrors, true
	m.mu.Unlock()
	m.Poke()
}

// Poke has everything looked at again.
func (m *Mirrors) Poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (m *Mirrors) Run(ctx context.Context) error {
	for {
		var alarm <-chan time.Time
		if again := m.pass(ctx); again > 0 {
			alarm = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-alarm:
		}
	}
}

// pass does what can be done, and says when to try what failed; 0 is never.
func (m *Mirrors) pass(ctx context.Context) (again time.Duration) {
	living := m.cfg.Living()
	m.mu.Lock()
	ready := m.reported.static && m.reported.observed
	steps := mirrorSteps(m.static, living, m.observed)
	m.mu.Unlock()
	if !ready {
		return 0
	}
	now := time.Now()
	kept := map[string]heldMirror{}
	for _, s := range steps {
		h := m.held[s.key()]
		if !now.Before(h.until) {
			h = m.try(ctx, s, h)
		}
		if wait := time.Until(h.until); wait > 0 {
			kept[s.key()] = h
			if again == 0 || wait < again {
				again = wait
			}
		}
	}
	m.held = kept
	return again
}

// try does one step. A step that succeeded waits a moment to be observed.
func (m *Mirrors) try(ctx context.Context, s mirrorStep, h heldMirror) heldMirror {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var err error
	if s.remove != nil {
		err = m.remove(ctx, s.remove)
	} else {
		err = m.create(ctx, s.create)
	}
	if err == nil {
		return heldMirror{until: time.Now().Add(firstRetry)}
	}
	if text := err.Error(); text != h.told && !errors.Is(err, context.Canceled) {
		h.told = text
		m.cfg.Log.Warn("mirror pod not kept", "pod", s.key(), "err", err)
		if s.create != nil && (isRefused(err) || errors.Is(err, errUnmirrored)) {
			m.cfg.Event(s.create, ReasonMirror, "The API server shows no mirror pod: "+text)
		}
	}
	h.until = time.Now().Add(backOff(h.failures))
	if errors.Is(err, errUnmirrored) {
		h.until = time.Now().Add(24 * time.Hour) // this manifest never will
	}
	h.failures++
	return h
}

func (m *Mirrors) remove(ctx context.Context, mirror *corev1.Pod) error {
	err := m.cfg.Client.Pods(mirror.Namespace).Delete(ctx, mirror.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &mirror.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete mirror pod: %w", err)
	}
	return nil
}

func (m *Mirrors) create(ctx context.Context, static *corev1.Pod) error {
	if err := unmirrored(static); err != nil {
		return err
	}
	uid, err := m.cfg.NodeUID(ctx)
	if err != nil {
		return fmt.Errorf("find the node that owns the mirror pod: %w", err)
	}
	_, err = m.cfg.Client.Pods(static.Namespace).Create(ctx, mirrorOf(static, uid), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create mirror pod: %w", err)
	}
	return nil
}

// mirrorStep is one thing to do: exactly one field is set.
type mirrorStep struct{ create, remove *corev1.Pod }

// key names a step, and another one once the pod is another.
func (s mirrorStep) key() string {
	if s.remove != nil {
		return nameOf(s.remove).String() + " " + string(s.remove.UID)
	}
	return nameOf(s.create).String() + " " + s.create.Annotations[annotationHash]
}

// mirrorSteps decides what brings the mirrors to where they should be. A mirror
// shows the pod that is there, and the manifest's once that is gone. One that is
// to be replaced is only removed; the next pass sees that it is gone.
func mirrorSteps(static, living, mirrors []*corev1.Pod) []mirrorStep {
	want := map[types.NamespacedName]*corev1.Pod{}
	for _, p := range static {
		want[nameOf(p)] = p
	}
	for _, p := range living {
		want[nameOf(p)] = p
	}
	var steps []mirrorStep
	for _, mirror := range mirrors {
		p := want[nameOf(mirror)]
		delete(want, nameOf(mirror))
		if p == nil || mirror.DeletionTimestamp != nil || mirror.Annotations[annotationMirror] != p.Annotations[annotationHash] {
			steps = append(steps, mirrorStep{remove: mirror})
		}
	}
	for p := range maps.Values(want) {
		steps = append(steps, mirrorStep{create: p})
	}
	return steps
}

// mirrorOf is the pod that shows a static pod, owned by the node whose UID is
// given: when the node's object goes, so do the mirrors.
func mirrorOf(static *corev1.Pod, node types.UID) *corev1.Pod {
	annotations := maps.Clone(static.Annotations)
	annotations[annotationMirror] = annotations[annotationHash]
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: static.Name, Namespace: static.Namespace, Labels: static.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Node", Name: static.Spec.NodeName, UID: node, Controller: new(true),
			}},
		},
		Spec: static.Spec,
	}
}

var errUnmirrored = errors.New("the pod refers to a config map or secret of its manifest directory, which an API server does not know")

// unmirrored says why no API server would take a mirror: a node may not make pods
// that refer to objects, or it could read any. Other references than these are
// refused in manifests already.
func unmirrored(pod *corev1.Pod) error {
	refers := len(pod.Spec.ImagePullSecrets) > 0
	for _, v := range pod.Spec.Volumes {
		refers = refers || v.ConfigMap != nil || v.Secret != nil
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			refers = refers || s.ConfigMap != nil || s.Secret != nil
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			refers = refers || len(c.EnvFrom) > 0
			for _, e := range c.Env {
				refers = refers || e.ValueFrom != nil && (e.ValueFrom.ConfigMapKeyRef != nil || e.ValueFrom.SecretKeyRef != nil)
			}
		}
	}
	if refers {
		return errUnmirrored
	}
	return nil
}
