package podsource

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// merge makes one list of all files, and hands it on if something has changed.
// What a later file replaces is a problem of the earlier one.
func (s *scan) merge(changed bool) []Problem {
	m := merger{taken: map[string]owner{}, objects: Objects{map[types.NamespacedName]*corev1.ConfigMap{}, map[types.NamespacedName]*corev1.Secret{}}}
	for _, path := range slices.Backward(slices.Sorted(maps.Keys(s.files))) {
		m.file(path, s.files[path].good)
	}
	if !changed {
		return m.problems
	}
	slices.SortFunc(m.pods, func(a, b *corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	s.stampSeen(m.pods)
	s.emitted = true
	s.dir.Emit(m.pods, m.objects)
	return m.problems
}

// stampSeen says of each pod when it was first seen. A pod is marked before it is
// handed on for the first time, and never again.
func (s *scan) stampSeen(pods []*corev1.Pod) {
	now := time.Now().Format("2006-01-02T15:04:05.000000000Z07:00")
	seen := map[types.UID]string{}
	for _, pod := range pods {
		at, known := s.seen[pod.UID]
		if !known {
			at = now
		}
		seen[pod.UID] = at
		if pod.Annotations[AnnotationSeen] == "" {
			pod.Annotations[AnnotationSeen] = at
		}
	}
	s.seen = seen
}

// owner is the file that has a pod or object.
type owner struct {
	path string
	obj  metav1.Object
}

// merger takes files from the last to the first.
type merger struct {
	taken    map[string]owner
	pods     []*corev1.Pod
	objects  Objects
	problems []Problem
}

func (m *merger) file(path string, p Parsed) {
	for _, pod := range p.Pods {
		if m.take(path, p, "Pod", pod) && m.takeKey(path, p, "UID "+string(pod.UID), pod) {
			m.pods = append(m.pods, pod)
		}
	}
	for _, c := range p.ConfigMaps {
		if m.take(path, p, "ConfigMap", c) {
			m.objects.ConfigMaps[nameOfObject(c)] = c
		}
	}
	for _, c := range p.Secrets {
		if m.take(path, p, "Secret", c) {
			m.objects.Secrets[nameOfObject(c)] = c
		}
	}
}

func nameOfObject(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (m *merger) take(path string, p Parsed, kind string, obj metav1.Object) bool {
	return m.takeKey(path, p, kind+" "+nameOfObject(obj).String(), obj)
}

func (m *merger) takeKey(path string, p Parsed, key string, obj metav1.Object) bool {
	if winner, taken := m.taken[key]; taken {
		problem := Problem{File: path, Line: p.Line(obj), Err: fmt.Errorf("%s is also in %s, which is used because it comes later", key, winner.path)}
		if _, isPod := obj.(*corev1.Pod); isPod {
			problem.Pod = nameOfObject(obj).String()
		}
		m.problems = append(m.problems, problem)
		return false
	}
	m.taken[key] = owner{path, obj}
	return true
}
