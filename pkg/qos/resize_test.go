package qos

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestTiersThatFitAreLeftAlone(t *testing.T) {
	root := t.TempDir()
	tree := &Tree{
		fs: &hierarchy{root: root, version: 2, mounts: map[string]string{"": root}}, version: 2, tiers: map[string][]Setting{},
	}
	weight := filepath.Join(root, "kubepods/burstable/cpu.weight")
	for _, dir := range []string{"kubepods/burstable", "kubepods/besteffort"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "cpu.weight"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	resize := func(pods ...*corev1.Pod) string {
		t.Helper()
		if err := os.WriteFile(weight, []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := tree.ResizeTiers(t.Context(), pods); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(weight)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	one := examplePods()["B1"]
	if got := resize(one); got == "untouched" {
		t.Error("the first pod changes the weight")
	}
	if got := resize(one); got != "untouched" {
		t.Errorf("nothing has changed, and %q is written again", got)
	}
	if got := resize(); got == "untouched" {
		t.Error("the last pod's end changes it again")
	}
}
