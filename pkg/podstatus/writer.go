package podstatus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// parallelWrites bounds the requests that are under way at once.
const parallelWrites = 8

// Writer brings the newest status of each pod to its object in an API server, and
// deletes that object at last. It compares with the newest version of the object
// that it has seen: what is there already is not sent, and what somebody else has
// overwritten is. A pod without an object waits for it.
//
// It is safe for concurrent use. See NewWriter.
type Writer struct {
	client corev1client.PodsGetter
	log    *slog.Logger
	wake   chan struct{} // capacity 1

	mu      sync.Mutex // guards all below; not held across I/O
	pods    map[types.UID]*writing
	objects objects
}

// writing is what is known of one pod.
type writing struct {
	pod       *corev1.Pod // as told last, with its status; never changed
	object    *corev1.Pod // as observed last; nil when there is none
	answer    *corev1.Pod // of the last request, until as much has been observed
	released  bool        // its object may go
	deleted   types.UID   // the object that was asked to go
	dirty     bool
	busy      bool
	failures  int
	notBefore time.Time
}

// NewWriter returns a Writer that sends nothing until Run.
func NewWriter(client corev1client.PodsGetter, log *slog.Logger) *Writer {
	return &Writer{client: client, log: log, wake: make(chan struct{}, 1), pods: map[types.UID]*writing{}}
}

// Set has the status of pod written. The caller must not change it afterwards.
func (w *Writer) Set(pod *corev1.Pod) { w.change(pod, func(*writing) {}) }

// Release says that a pod which is being deleted holds nothing on this node any
// more: once its status is written, its object may go.
func (w *Writer) Release(pod *corev1.Pod) { w.change(pod, func(e *writing) { e.released = true }) }

func (w *Writer) change(pod *corev1.Pod, f func(*writing)) {
	w.mu.Lock()
	e := w.pods[pod.UID]
	if e == nil {
		e = &writing{}
		w.pods[pod.UID] = e
	}
	e.pod, e.dirty = pod, true
	e.object = w.objects.of(pod)
	f(e)
	w.mu.Unlock()
	w.poke()
}

// Remove forgets a pod.
func (w *Writer) Remove(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, uid)
}

// Static are the static pods that there are on this node, also those whose manifest
// is gone and which still stop.
func (w *Writer) Static() []*corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var pods []*corev1.Pod
	for _, e := range w.pods {
		if isStatic(e.pod) {
			pods = append(pods, e.pod)
		}
	}
	return pods
}

// Observe takes the full lists of what the API server has for this node.
func (w *Writer) Observe(pods, mirrors []*corev1.Pod) {
	w.mu.Lock()
	w.objects = newObjects(pods, mirrors)
	changed := false
	for _, e := range w.pods {
		object := w.objects.of(e.pod)
		if object == e.object {
			continue
		}
		e.object, e.dirty, changed = object, true, true
		if e.answer != nil && (object == nil || !older(object, e.answer)) {
			e.answer = nil
		}
	}
	w.mu.Unlock()
	if changed {
		w.poke()
	}
}

func (w *Writer) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// older says whether a is an earlier version of the same object than b.
func older(a, b *corev1.Pod) bool {
	if a.UID != b.UID {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	var requests sync.WaitGroup
	defer requests.Wait()
	slots := make(chan struct{}, parallelWrites)
	for {
		select {
		case slots <- struct{}{}: // before the choice, so that what is sent is the newest
		case <-ctx.Done():
			return nil
		}
		j, again := w.next(time.Now())
		if j != nil {
			requests.Go(func() {
				w.finish(ctx, *j, j.do(ctx, w.client))
				<-slots
			})
			continue
		}
		<-slots
		var alarm <-chan time.Time
		if again > 0 {
			alarm = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		case <-alarm:
		}
	}
}

// next takes out a pod whose turn it is. When there is none it says how long to
// wait for one; 0 is until somebody pokes.
func (w *Writer) next(now time.Time) (j *job, again time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for uid, e := range w.pods {
		object := e.object
		if e.answer != nil {
			object = e.answer
		}
		if !e.dirty || e.busy || object == nil {
			continue
		}
		if wait := e.notBefore.Sub(now); wait > 0 {
			if again == 0 || wait < again {
				again = wait
			}
			continue
		}
		e.dirty, e.busy = false, true
		return &job{uid: uid, pod: e.pod, object: object, release: e.released && e.deleted != object.UID}, 0
	}
	return nil, again
}

// job is one pod's turn.
type job struct {
	uid         types.UID
	pod, object *corev1.Pod
	release     bool
}

type outcome struct {
	answer  *corev1.Pod // nil when nothing was written
	deleted bool
	err     error
}

// do writes what is to be written, and then deletes what is to be deleted.
func (j job) do(ctx context.Context, client corev1client.PodsGetter) outcome {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var out outcome
	pods := client.Pods(j.object.Namespace)
	patch, err := statusPatch(j.object, merge(j.pod.Status, j.object.Status))
	if err != nil {
		return outcome{err: fmt.Errorf("compare status: %w", err)}
	}
	if patch != nil {
		out.answer, err = pods.Patch(ctx, j.object.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil {
			return outcome{err: fmt.Errorf("write status: %w", err)}
		}
	}
	if !j.release {
		return out
	}
	err = pods.Delete(ctx, j.object.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &j.object.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // a conflict is another pod of that name
		out.err = fmt.Errorf("delete: %w", err)
		return out
	}
	out.deleted = true
	return out
}

// finish writes down what came of a job.
func (w *Writer) finish(ctx context.Context, j job, out outcome) {
	gone := apierrors.IsNotFound(out.err)
	if out.err != nil && !gone && ctx.Err() == nil && !errors.Is(out.err, context.Canceled) {
		w.log.Warn("pod status not written", "pod", j.object.Namespace+"/"+j.object.Name, "uid", j.uid, "err", out.err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.pods[j.uid]
	if e == nil {
		return
	}
	defer w.poke()
	e.busy = false
	if a := out.answer; a != nil && (e.object == nil || older(e.object, a)) {
		e.answer = a
	}
	if out.deleted {
		e.deleted = j.object.UID
	}
	switch {
	case out.err == nil, gone: // and that it is gone will be observed
		e.failures, e.notBefore = 0, time.Time{}
	default:
		e.dirty = true
		e.notBefore = time.Now().Add(backOff(e.failures))
		e.failures++
	}
}
