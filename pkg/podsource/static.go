package podsource

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Annotations of static pods, as the kubelet sets them.
const (
	// AnnotationHash changes with the content of the manifest, also where the
	// manifest gives a UID of its own.
	AnnotationHash = "kubernetes.io/config.hash"
	// AnnotationSource is Source.
	AnnotationSource = "kubernetes.io/config.source"
	// AnnotationSeen is when this agent first saw the pod; it says nothing about
	// the pod's content.
	AnnotationSeen = "kubernetes.io/config.seen"
	// AnnotationMirror marks the pod of an API server that shows a static pod; its
	// value is the hash of that.
	AnnotationMirror = "kubernetes.io/config.mirror"
)

// Source names this source of pods.
const Source = "file"

// contentHash is 32 hex digits that stay the same for the same content in the
// same file on the same node. It is taken of what the file says, not of the
// decoded and defaulted pod: otherwise a new version of this agent, which knows
// more fields and defaults, would restart every pod. Comments, order and layout,
// and what only an API server writes, do not count.
func contentHash(tree map[string]any, node, file string) (string, error) {
	content := map[string]any{"spec": tree["spec"]}
	if meta, ok := tree["metadata"].(map[string]any); ok {
		kept := map[string]any{}
		for _, f := range []string{"name", "namespace", "uid", "labels"} {
			if meta[f] != nil {
				kept[f] = meta[f]
			}
		}
		if annotations, ok := meta["annotations"].(map[string]any); ok {
			own := map[string]any{}
			for k, v := range annotations {
				if !isLocalAnnotation(k) {
					own[k] = v
				}
			}
			if len(own) > 0 {
				kept["annotations"] = own
			}
		}
		content["metadata"] = kept
	}
	h := fnv.New128a()
	data, err := json.Marshal(content) // sorts the names
	if err != nil {
		return "", fmt.Errorf("hash manifest: %w", err)
	}
	fmt.Fprintf(h, "%s\nhost:%s\nfile:%s", data, node, file)
	return hex.EncodeToString(h.Sum(nil)), nil
}

func isLocalAnnotation(key string) bool {
	switch key {
	case AnnotationHash, AnnotationSource, AnnotationSeen, AnnotationMirror:
		return true
	default:
		return false
	}
}

// clean takes out what a manifest has no say in. Manifests are often the output
// of `kubectl get -o yaml`.
func clean(pod *corev1.Pod) {
	cleanMeta(&pod.ObjectMeta)
	for key := range pod.Annotations {
		if isLocalAnnotation(key) {
			delete(pod.Annotations, key)
		}
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
}

func cleanMeta(m *metav1.ObjectMeta) {
	*m = metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, Labels: m.Labels, Annotations: m.Annotations}
	if m.Namespace == "" {
		m.Namespace = metav1.NamespaceDefault
	}
}

// localize makes the pod this node's own.
func localize(pod *corev1.Pod, node, hash string) {
	if pod.UID == "" {
		pod.UID = types.UID(hash)
	}
	pod.Name = fmt.Sprintf("%s-%s", pod.Name, strings.ToLower(node))
	pod.Spec.NodeName = node
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[AnnotationHash] = hash
	pod.Annotations[AnnotationSource] = Source
	tolerateNoExecute(pod)
	resolvePriority(pod)
}

// resolvePriority does what an API server's admission does for the two classes
// that every cluster has. There is no API to ask for others: a pod of another
// class has the priority it names itself, or none.
func resolvePriority(pod *corev1.Pod) {
	if pod.Spec.Priority != nil {
		return
	}
	switch pod.Spec.PriorityClassName {
	case "system-node-critical":
		pod.Spec.Priority = new(int32(2_000_001_000))
	case "system-cluster-critical":
		pod.Spec.Priority = new(int32(2_000_000_000))
	}
}

// tolerateNoExecute keeps the pod on this node: there is no other for it.
func tolerateNoExecute(pod *corev1.Pod) {
	all := corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
	for i := range pod.Spec.Tolerations {
		if t := &pod.Spec.Tolerations[i]; t.Key == "" && t.Effect == all.Effect && t.Operator == all.Operator && t.Value == "" {
			*t = all // without a time limit
			return
		}
	}
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, all)
}

func validateFinalName(pod *corev1.Pod) field.ErrorList {
	if messages := validation.IsDNS1123Subdomain(pod.Name); len(messages) > 0 {
		return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), pod.Name, "with the node's name: "+strings.Join(messages, "; "))}
	}
	return nil
}
