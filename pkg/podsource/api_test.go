package podsource

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestBoundPods(t *testing.T) {
	at := func(name string, seconds int64, annotations map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, CreationTimestamp: metav1.Time{Time: time.Unix(seconds, 0)},
			Annotations: annotations, ManagedFields: []metav1.ManagedFieldsEntry{{}},
		}}
	}
	var got, mirrors []string
	a := &API{Emit: func(pods, shown []*corev1.Pod) {
		got, mirrors = nil, nil
		for _, p := range pods {
			if p.Annotations[AnnotationSource] != SourceAPI || p.ManagedFields != nil {
				t.Errorf("%s is not marked as a pod of the API server: %v", p.Name, p.Annotations)
			}
			got = append(got, p.Name)
		}
		for _, p := range shown {
			mirrors = append(mirrors, p.Name)
		}
	}}
	b := &boundPods{emit: a.emit, pods: map[string]*corev1.Pod{}}
	steps := []struct {
		reason        string
		do            func() error
		pods, mirrors []string
	}{
		{"the oldest pod comes first, and mirrors apart", func() error {
			return b.Replace([]any{at("young", 20, nil), at("old", 10, nil), at("st-node", 5, map[string]string{AnnotationMirror: "x"})}, "1")
		}, []string{"old", "young"}, []string{"st-node"}},
		{"no pod can pass for a static one", func() error {
			return b.Add(at("sly", 30, map[string]string{AnnotationSource: Source}))
		}, []string{"old", "young", "sly"}, []string{"st-node"}},
		{"what is deleted is in no list", func() error { return b.Delete(at("old", 10, nil)) }, []string{"young", "sly"}, []string{"st-node"}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s.pods, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", s.reason, d)
		}
		if d := cmp.Diff(s.mirrors, mirrors); d != "" {
			t.Errorf("%s (-want +got):\n%s", s.reason, d)
		}
	}
}
