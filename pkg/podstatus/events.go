package podstatus

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	maxEventsPerPod = 64
	maxEventPods    = 1024
	maxEventMessage = 1024 // bytes, as the API server limits it
)

// Event records that something happened to pod at now. kind is Normal or
// Warning; reason is one of the kubelet's. An event that was recorded before is
// counted, not repeated.
func (b *Board) Event(pod *corev1.Pod, kind, reason, message string, now time.Time) {
	if len(message) > maxEventMessage {
		message = message[:maxEventMessage-3] + "..."
	}
	key := pod.Namespace + "/" + pod.Name
	at := metav1.NewTime(now)
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.events[key]
	i := slices.IndexFunc(list, func(e corev1.Event) bool {
		return e.InvolvedObject.UID == pod.UID && e.Type == kind && e.Reason == reason && e.Message == message
	})
	if i >= 0 {
		e := list[i]
		e.Count++
		e.LastTimestamp = at
		b.events[key] = append(slices.Delete(list, i, i+1), e)
		return
	}
	if len(list) >= maxEventsPerPod {
		list = slices.Delete(list, 0, len(list)-maxEventsPerPod+1)
	}
	b.events[key] = append(list, corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: pod.Namespace, Name: fmt.Sprintf("%s.%x", pod.Name, now.UnixNano())},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Reason:         reason,
		Message:        message,
		Source:         corev1.EventSource{Component: "nodeagent", Host: pod.Spec.NodeName},
		FirstTimestamp: at,
		LastTimestamp:  at,
		Count:          1,
		Type:           kind,
	})
	b.forgetEvents()
}

// forgetEvents keeps the number of pods with events bounded: the one whose last
// event is oldest goes. The caller holds mu.
func (b *Board) forgetEvents() {
	if len(b.events) <= maxEventPods {
		return
	}
	var oldest string
	var when time.Time
	for key, list := range b.events {
		if last := list[len(list)-1].LastTimestamp.Time; oldest == "" || last.Before(when) {
			oldest, when = key, last
		}
	}
	delete(b.events, oldest)
}

// Events returns copies of what happened to a pod, oldest first.
func (b *Board) Events(namespace, name string) []corev1.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.events[namespace+"/"+name]
	out := make([]corev1.Event, len(list))
	for i := range list {
		list[i].DeepCopyInto(&out[i])
	}
	return out
}
