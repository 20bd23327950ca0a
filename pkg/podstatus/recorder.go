package podstatus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// maxEventQueue bounds the events that wait for an API server which is away. The
// oldest go first.
const maxEventQueue = 1000

// Recorder brings events to an API server: the same one counted, many similar ones
// as one, and no more of one pod than the kubelet would send.
//
// It is safe for concurrent use. See NewRecorder.
type Recorder struct {
	client corev1client.EventsGetter
	log    *slog.Logger
	wake   chan struct{} // capacity 1

	mu    sync.Mutex // guards queue
	queue []corev1.Event
}

// NewRecorder returns a Recorder that sends nothing until Run.
func NewRecorder(client corev1client.EventsGetter, log *slog.Logger) *Recorder {
	return &Recorder{client: client, log: log, wake: make(chan struct{}, 1)}
}

// Event has an event sent; see Board.Event. It never blocks.
func (r *Recorder) Event(pod *corev1.Pod, container, kind, reason, message string, now time.Time) {
	event := newEvent(pod, container, now)
	event.Type, event.Reason, event.Message = kind, reason, cut(message)
	r.mu.Lock()
	if len(r.queue) >= maxEventQueue {
		r.queue = r.queue[1:]
	}
	r.queue = append(r.queue, event)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Recorder) take() (corev1.Event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		r.queue = nil // what it grew to is not needed again soon
		return corev1.Event{}, false
	}
	event := r.queue[0]
	r.queue = r.queue[1:]
	return event, true
}

// Run sends until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	correlator := record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{})
	for {
		event, ok := r.take()
		if ok {
			r.send(ctx, correlator, &event)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
	}
}

// send tries one event until the API server has had its say.
func (r *Recorder) send(ctx context.Context, correlator *record.EventCorrelator, event *corev1.Event) {
	result, err := correlator.EventCorrelate(event)
	if err != nil {
		r.log.Warn("event not correlated", "pod", event.InvolvedObject.Namespace+"/"+event.InvolvedObject.Name, "err", err)
	}
	if result.Skip {
		return
	}
	for failures := 0; ctx.Err() == nil; failures++ {
		sent, err := r.write(ctx, result.Event, result.Patch)
		if err == nil {
			correlator.UpdateState(sent)
			return
		}
		if isRefused(err) {
			// Such as a namespace that is being deleted: nobody will read it.
			r.log.Debug("event refused", "pod", event.InvolvedObject.Namespace+"/"+event.InvolvedObject.Name, "reason", event.Reason, "err", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(backOff(failures)):
		}
	}
}

// write counts an event that is there, or makes it.
func (r *Recorder) write(ctx context.Context, event *corev1.Event, patch []byte) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	events := r.client.Events(event.Namespace)
	if event.Count > 1 {
		sent, err := events.Patch(ctx, event.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if err == nil || !apierrors.IsNotFound(err) {
			return sent, err
		}
	}
	event = event.DeepCopy()
	event.ResourceVersion = "" // it may have been there once
	sent, err := events.Create(ctx, event, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return event, nil
	}
	if err != nil {
		return nil, fmt.Errorf("create event: %w", err)
	}
	return sent, nil
}
