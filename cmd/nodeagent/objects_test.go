package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/object"
	"github.com/nodeagent/nodeagent/pkg/podsource"
)

// TestWhoSeesTheManifestDirectory is about secrets of the machine, which nobody may
// read who only has the right to make pods.
func TestWhoSeesTheManifestDirectory(t *testing.T) {
	key := types.NamespacedName{Namespace: "default", Name: "pw"}
	objects := podsource.Objects{
		ConfigMaps: map[types.NamespacedName]*corev1.ConfigMap{key: {}}, Secrets: map[types.NamespacedName]*corev1.Secret{key: {}},
	}
	pod := func(uid types.UID, source string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", UID: uid, Annotations: map[string]string{podsource.AnnotationSource: source}}}
	}
	static := pod("static", podsource.Source)
	cases := map[string]struct {
		reason     string
		standalone bool
		pod        *corev1.Pod
		sees       bool
	}{
		"Static":     {"a pod of the directory", false, static, true},
		"Standalone": {"without an API server there are no others", true, pod("gone", podsource.Source), true},
		"API":        {"a pod of the API server", false, pod("api", podsource.SourceAPI), false},
		"Forged":     {"one that says that it is of the directory", false, pod("api", podsource.Source), false},
		"Gone":       {"one that has left the directory and is still starting", false, pod("gone", podsource.Source), false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a := &agent{}
			a.manifests.Store(newManifests([]*corev1.Pod{static}, objects))
			if !tc.standalone {
				a.objects = object.New(object.Config{Log: slog.New(slog.DiscardHandler)})
			}
			_, mapErr := a.configMap(t.Context(), tc.pod, "pw")
			_, secretErr := a.secret(t.Context(), tc.pod, "pw")
			if (mapErr == nil) != tc.sees || (secretErr == nil) != tc.sees {
				t.Errorf("%s: %v, %v, want it to see them: %v", tc.reason, mapErr, secretErr, tc.sees)
			}
			if !tc.sees && errors.Is(secretErr, fs.ErrNotExist) {
				t.Errorf("%s: %v says that the secret does not exist, which nobody has looked up", tc.reason, secretErr)
			}
			if variables, err := a.services(t.Context(), static); variables != nil || err != nil {
				t.Errorf("a pod of the directory waits for services: %v, %v", variables, err)
			}
		})
	}
}
