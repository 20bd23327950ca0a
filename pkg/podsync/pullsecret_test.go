package podsync

import (
	"context"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestPullCredentials(t *testing.T) {
	const entry = `{"quay.io": {"username": "anna", "password": "p"}}`
	anna := []cri.Credential{{Username: "anna", Password: "p"}}
	cases := map[string]struct {
		reason   string
		secret   *corev1.Secret
		want     []cri.Credential
		problems int
	}{
		"Data":    {"what kubectl create secret docker-registry makes", &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{".dockerconfigjson": []byte(`{"auths": ` + entry + `}`)}}, anna, 0},
		"Text":    {"a manifest may have it as text", &corev1.Secret{StringData: map[string]string{".dockerconfigjson": `{"auths": ` + entry + `}`}}, anna, 0},
		"Old":     {"the form of old docker clients", &corev1.Secret{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{".dockercfg": []byte(entry)}}, anna, 0},
		"Missing": {"a secret that is missing is told of, and the pull is tried", nil, nil, 1},
		"Broken":  {"so is one that cannot be read", &corev1.Secret{Data: map[string][]byte{".dockerconfigjson": []byte("{")}}, nil, 1},
		"Empty":   {"or is of another kind", &corev1.Secret{Data: map[string][]byte{"x": nil}}, nil, 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
			got, problems := pullCredentials(t.Context(), pod, "quay.io/org/app:1", Lookups{
				Credentials: cri.Credentials,
				Secret: func(context.Context, *corev1.Pod, string) (*corev1.Secret, error) {
					if tc.secret == nil {
						return nil, fs.ErrNotExist
					}
					return tc.secret, nil
				},
			})
			if diff := cmp.Diff(tc.want, got); diff != "" || len(problems) != tc.problems {
				t.Errorf("%s: problems %v, -want +got:\n%s", tc.reason, problems, diff)
			}
		})
	}
}
