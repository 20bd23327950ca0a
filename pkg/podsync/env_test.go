package podsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "a", "B": "$(A)", "EMPTY": ""}
	cases := map[string]struct{ in, want string }{
		"Plain":           {"text", "text"},
		"Known":           {"x$(A)y", "xay"},
		"Twice":           {"$(A)$(A)", "aa"},
		"Unknown":         {"$(NO)", "$(NO)"},
		"Empty":           {"[$(EMPTY)]", "[]"},
		"NoName":          {"$()", "$()"},
		"Escaped":         {"$$(A)", "$(A)"},
		"EscapedTwice":    {"$$$(A)", "$a"},
		"EscapedThrice":   {"$$$$(A)", "$$(A)"},
		"OnlyEscape":      {"$$", "$"},
		"LoneAtEnd":       {"cost$", "cost$"},
		"LoneInside":      {"$A", "$A"},
		"Unclosed":        {"$(A", "$(A"},
		"UnclosedThen":    {"$(A$(A)", "$(A$(A)"},
		"NotRecursive":    {"$(B)", "$(A)"},
		"Shell":           {"${A}", "${A}"},
		"ParensInText":    {"(A)", "(A)"},
		"ClosedLater":     {"$(A) b) $(A)", "a b) a"},
		"DollarBeforeEnd": {"$(A)$", "a$"},
		"SpaceInName":     {"$( A )", "$( A )"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := expand(tc.in, func(n string) (string, bool) { v, ok := vars[n]; return v, ok })
			if got != tc.want {
				t.Errorf("%q: want %q, got %q", tc.in, tc.want, got)
			}
		})
	}
}

func testLookups() Lookups {
	missing := func(kind, name string) error {
		return fmt.Errorf("%s %q not found: %w", kind, name, fs.ErrNotExist)
	}
	return Lookups{
		ConfigMap: func(_ context.Context, _ *corev1.Pod, name string) (*corev1.ConfigMap, error) {
			if name != "conf" {
				return nil, missing("configmaps", name)
			}
			return &corev1.ConfigMap{Data: map[string]string{"one": "1", "two": "2", "bad=key": "x"}}, nil
		},
		Secret: func(_ context.Context, _ *corev1.Pod, name string) (*corev1.Secret, error) {
			switch name {
			case "keys":
				return &corev1.Secret{Data: map[string][]byte{"pass": []byte("s3cret")}, StringData: map[string]string{"user": "me"}}, nil
			case "broken":
				return nil, errors.New("disk on fire")
			}
			return nil, missing("secrets", name)
		},
		Field: func(pod *corev1.Pod, path string) (string, error) {
			if path == "status.podIP" {
				return pod.Status.PodIP, nil
			}
			return "", errors.New("no such field")
		},
		Resource: func(_ *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
			return c.Name + " " + ref.Resource, nil
		},
	}
}

func fromConfig(name, key string, optional bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func fromSecret(name, key string, optional bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
	}}
}

func allOf(prefix, configMap, secret string, optional bool) corev1.EnvFromSource {
	e := corev1.EnvFromSource{Prefix: prefix}
	if configMap != "" {
		e.ConfigMapRef = &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}, Optional: &optional}
	}
	if secret != "" {
		e.SecretRef = &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Optional: &optional}
	}
	return e
}

func TestEnv(t *testing.T) {
	cases := map[string]struct {
		reason  string
		from    []corev1.EnvFromSource
		env     []corev1.EnvVar
		want    []string
		skipped int
		err     string
	}{
		"Plain": {
			reason: "order is kept", env: []corev1.EnvVar{{Name: "B", Value: "1"}, {Name: "A", Value: "2"}},
			want: []string{"B=1", "A=2"},
		},
		"Expansion": {
			reason: "a variable sees those before it, not those after",
			env:    []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(C)"}, {Name: "C", Value: "3"}},
			want:   []string{"A=1", "B=1$(C)", "C=3"},
		},
		"Override": {
			reason: "env wins over envFrom, and may refer to what it replaces",
			from:   []corev1.EnvFromSource{allOf("", "conf", "", false)},
			env:    []corev1.EnvVar{{Name: "one", Value: "$(one)$(one)"}},
			want:   []string{"one=11", "two=2"}, skipped: 1,
		},
		"LaterSourceWins": {
			reason: "of two sources the later wins",
			from:   []corev1.EnvFromSource{allOf("", "", "keys", false), {Prefix: "p_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
			want:   []string{"pass=s3cret", "user=me", "p_one=1", "p_two=2"}, skipped: 1,
		},
		"SourceMissing": {
			reason: "a missing source keeps the container from being made", from: []corev1.EnvFromSource{allOf("", "nope", "", false)},
			err: `configmaps "nope" not found`,
		},
		"SourceOptional": {
			reason: "unless it is optional", from: []corev1.EnvFromSource{allOf("", "nope", "", true), allOf("", "", "nope", true)},
		},
		"SourceBroken": {
			reason: "optional means absent, not unreadable", from: []corev1.EnvFromSource{allOf("", "", "broken", true)},
			err: "disk on fire",
		},
		"Keys": {
			reason: "single keys", env: []corev1.EnvVar{
				{Name: "A", ValueFrom: fromConfig("conf", "one", false)}, {Name: "B", ValueFrom: fromSecret("keys", "pass", false)},
			},
			want: []string{"A=1", "B=s3cret"},
		},
		"KeyMissing": {
			reason: "a missing key is an error that names it", env: []corev1.EnvVar{{Name: "A", ValueFrom: fromConfig("conf", "nope", false)}},
			err: "env A: couldn't find key nope in ConfigMap default/conf",
		},
		"KeyOptional": {
			reason: "an optional key that is missing leaves the variable unset",
			env:    []corev1.EnvVar{{Name: "A", ValueFrom: fromConfig("conf", "nope", true)}, {Name: "B", ValueFrom: fromSecret("nope", "x", true)}, {Name: "C", Value: "$(A)"}},
			want:   []string{"C=$(A)"},
		},
		"Fields": {
			reason: "fields of the pod and resources of the container",
			env: []corev1.EnvVar{
				{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
				{Name: "URL", Value: "http://$(IP)"},
			},
			want: []string{"IP=10.0.0.9", "CPU=main limits.cpu", "URL=http://10.0.0.9"},
		},
		"NotExpandedFromSources": {
			reason: "values of sources are taken as they are",
			env:    []corev1.EnvVar{{Name: "X", Value: "1"}, {Name: "A", ValueFrom: fromSecret("keys", "user", false)}},
			want:   []string{"X=1", "A=me"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Status.PodIP = "10.0.0.9"
			c := &pod.Spec.Containers[0]
			c.EnvFrom, c.Env = tc.from, tc.env
			got, skipped, err := env(t.Context(), pod, c, testLookups())
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("%s: want error %q, got %v", tc.reason, tc.err, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if d := cmp.Diff(tc.want, got.list(), cmpopts.EquateEmpty()); d != "" || len(skipped) != tc.skipped {
				t.Errorf("%s: skipped %q (-want +got):\n%s", tc.reason, skipped, d)
			}
		})
	}
}
