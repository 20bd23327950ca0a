package podstatus

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// Annotations of static pods and of the pods that show them.
const (
	annotationSource = "kubernetes.io/config.source"
	annotationHash   = "kubernetes.io/config.hash"
	annotationMirror = "kubernetes.io/config.mirror"
	sourceAPI        = "api"
)

// isStatic says whether a pod comes from this machine and not from an API server.
func isStatic(pod *corev1.Pod) bool {
	source := pod.Annotations[annotationSource]
	return source != "" && source != sourceAPI
}

// objects are the pods of an API server: of API pods their own object, of static
// pods the mirror.
type objects struct {
	pods    map[types.UID]*corev1.Pod
	mirrors map[types.NamespacedName]*corev1.Pod
}

func newObjects(pods, mirrors []*corev1.Pod) objects {
	o := objects{pods: make(map[types.UID]*corev1.Pod, len(pods)), mirrors: make(map[types.NamespacedName]*corev1.Pod, len(mirrors))}
	for _, p := range pods {
		o.pods[p.UID] = p
	}
	for _, p := range mirrors {
		o.mirrors[nameOf(p)] = p
	}
	return o
}

func nameOf(pod *corev1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
}

// of is the object that shows pod, nil when there is none yet.
func (o objects) of(pod *corev1.Pod) *corev1.Pod {
	if !isStatic(pod) {
		return o.pods[pod.UID]
	}
	m := o.mirrors[nameOf(pod)]
	if m == nil || m.Annotations[annotationMirror] != pod.Annotations[annotationHash] {
		return nil
	}
	return m
}

// merge is the status that the API server shall have: ours, with what others have
// put into theirs. A pod that has ended stays so.
func merge(ours, theirs corev1.PodStatus) corev1.PodStatus {
	s := *ours.DeepCopy()
	s.NominatedNodeName = theirs.NominatedNodeName
	s.ResourceClaimStatuses = theirs.ResourceClaimStatuses
	s.ExtendedResourceClaimStatus = theirs.ExtendedResourceClaimStatus
	if theirs.StartTime != nil {
		s.StartTime = theirs.StartTime
	}
	if terminal(theirs.Phase) && s.Phase != theirs.Phase {
		s.Phase, s.Reason, s.Message = theirs.Phase, theirs.Reason, theirs.Message
	}
	s.Conditions = mergeConditions(s.Conditions, theirs.Conditions)
	return s
}

func terminal(p corev1.PodPhase) bool {
	return p == corev1.PodSucceeded || p == corev1.PodFailed
}

func mergeConditions(ours, theirs []corev1.PodCondition) []corev1.PodCondition {
	var list []corev1.PodCondition
	mine := map[corev1.PodConditionType]bool{}
	for _, c := range ours {
		if isOurs(c) {
			mine[c.Type] = true
			list = append(list, c)
		}
	}
	for _, c := range theirs {
		if !mine[c.Type] && !isOurs(c) {
			list = append(list, c)
		}
	}
	return list
}

// isOurs says whether a condition is the node's to set and to take away.
func isOurs(c corev1.PodCondition) bool {
	switch c.Type {
	case corev1.PodScheduled, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady,
		corev1.PodReadyToStartContainers, corev1.AllContainersRestarting,
		corev1.PodResizePending, corev1.PodResizeInProgress:
		return true
	case corev1.DisruptionTarget:
		return c.Reason == corev1.PodReasonTerminationByKubelet
	default:
		return false
	}
}

// statusPatch turns the status of an object into want; nil is no difference. It
// works on that object alone and on none that took its name.
func statusPatch(object *corev1.Pod, want corev1.PodStatus) ([]byte, error) {
	if equality.Semantic.DeepEqual(object.Status, want) {
		return nil, nil
	}
	before, err := json.Marshal(&corev1.Pod{Status: object.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: object.UID}, Status: want})
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
}
