package podstatus

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	recordutil "k8s.io/client-go/tools/record/util"
)

const (
	maxEventsPerPod = 64
	maxEventPods    = 1024
	maxEventMessage = 1024 // bytes, as the API server limits it
	// component is what users select the events of nodes by.
	component = "kubelet"
)

// Event records that something happened to pod, or to its container of that name
// where it is not empty, at now. kind is Normal or Warning; reason is one of the
// kubelet's. An event that was recorded before is counted, not repeated.
func (b *Board) Event(pod *corev1.Pod, container, kind, reason, message string, now time.Time) {
	event := newEvent(pod, container, now)
	event.Type, event.Reason, event.Message = kind, reason, cut(message)
	key := pod.Namespace + "/" + pod.Name
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.events[key]
	i := slices.IndexFunc(list, func(e corev1.Event) bool {
		return e.InvolvedObject == event.InvolvedObject && e.Type == kind && e.Reason == reason && e.Message == event.Message
	})
	if i >= 0 {
		e := list[i]
		e.Count++
		e.LastTimestamp = event.LastTimestamp
		b.events[key] = append(slices.Delete(list, i, i+1), e)
		return
	}
	if len(list) >= maxEventsPerPod {
		list = slices.Delete(list, 0, len(list)-maxEventsPerPod+1)
	}
	b.events[key] = append(list, event)
	b.forgetEvents()
}

func cut(message string) string {
	if len(message) <= maxEventMessage {
		return message
	}
	return message[:maxEventMessage-3] + "..."
}

// newEvent is an event of a pod or of one of its containers. Like the kubelet's it
// names the static pod and not its mirror, which is where kubectl looks.
func newEvent(pod *corev1.Pod, container string, now time.Time) corev1.Event {
	about := corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		ResourceVersion: pod.ResourceVersion, FieldPath: fieldPath(pod, container),
	}
	if hash := pod.Annotations[annotationHash]; hash != "" && isStatic(pod) {
		about.UID = types.UID(hash)
	}
	at := metav1.NewTime(now)
	return corev1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:          metav1.ObjectMeta{Namespace: pod.Namespace, Name: recordutil.GenerateEventName(pod.Name, now.UnixNano())},
		InvolvedObject:      about,
		Source:              corev1.EventSource{Component: component, Host: pod.Spec.NodeName},
		ReportingController: component, ReportingInstance: pod.Spec.NodeName,
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
}

// fieldPath says where in a pod a container is described, as the kubelet does.
func fieldPath(pod *corev1.Pod, container string) string {
	if container == "" {
		return ""
	}
	named := func(c corev1.Container) bool { return c.Name == container }
	list := "ephemeralContainers"
	switch {
	case slices.ContainsFunc(pod.Spec.Containers, named):
		list = "containers"
	case slices.ContainsFunc(pod.Spec.InitContainers, named):
		list = "initContainers"
	}
	return fmt.Sprintf("spec.%s{%s}", list, container)
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
