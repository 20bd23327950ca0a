package volume

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// objects is what a manifest directory would hold.
type objects map[string]map[string]string

// newSet keeps volumes in a directory of the test, and finds the given objects.
func newSet(t *testing.T, o objects) *Set {
	t.Helper()
	missing := func(kind, name string) error { return fmt.Errorf("%s %q: %w", kind, name, fs.ErrNotExist) }
	return &Set{
		RootDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		NodeAllocatable: corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi")},
		ConfigMap: func(_ context.Context, _ *corev1.Pod, name string) (*corev1.ConfigMap, error) {
			data, ok := o[name]
			if !ok {
				return nil, missing("configmap", name)
			}
			return &corev1.ConfigMap{Data: data}, nil
		},
		Secret: func(_ context.Context, _ *corev1.Pod, name string) (*corev1.Secret, error) {
			data, ok := o[name]
			if !ok {
				return nil, missing("secret", name)
			}
			s := &corev1.Secret{Data: map[string][]byte{}}
			for k, v := range data {
				s.Data[k] = []byte(v)
			}
			return s, nil
		},
	}
}

// basePod is the pod that each case changes.
func basePod(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-node", Namespace: "default", UID: "0123456789abcdef",
			Labels: map[string]string{"app": "web", "tier": `a "b"`}, Annotations: map[string]string{"note": "two\nlines"},
		},
		Spec: corev1.PodSpec{
			NodeName: "node", Volumes: volumes,
			Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("250m"), "memory": resource.MustParse("64Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("128Mi")},
			}}},
		},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// tree reads the files that a user of the volume sees, by their paths, with mode
// and content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(at, rel string)
	walk = func(at, rel string) {
		entries, err := os.ReadDir(at)
		must(t, err)
		for _, e := range entries {
			if len(e.Name()) > 2 && e.Name()[:2] == ".." {
				continue
			}
			path, name := filepath.Join(at, e.Name()), filepath.Join(rel, e.Name())
			info, err := os.Stat(path) // users follow the links
			must(t, err)
			if info.IsDir() {
				walk(path, name)
				continue
			}
			data, err := os.ReadFile(path)
			must(t, err)
			out[name] = fmt.Sprintf("%04o %s", info.Mode().Perm(), data)
		}
	}
	walk(dir, "")
	return out
}
