package qos

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

func TestConversions(t *testing.T) {
	for _, tc := range []struct {
		cpu            string
		shares, weight uint64
		quota          int64
	}{
		{"0", 2, 1, 0}, {"1m", 2, 1, 1000}, {"10m", 10, 1, 1000}, {"11m", 11, 1, 1100}, {"50m", 51, 2, 5000}, {"100m", 102, 4, 10000},
		{"333m", 340, 13, 33300}, {"1", 1024, 39, 100000}, {"1005m", 1029, 40, 100500}, {"2", 2048, 79, 200000}, {"256", 262144, 10000, 25600000}, {"300", 262144, 10000, 30000000},
	} {
		q := resource.MustParse(tc.cpu)
		if got := sharesOf(&q); got != tc.shares {
			t.Errorf("%s: %d shares, want %d", tc.cpu, got, tc.shares)
		}
		if got := weightOf(tc.shares); got != tc.weight {
			t.Errorf("%s: weight %d, want %d", tc.cpu, got, tc.weight)
		}
		if got := quotaOf(&q, 100000); got != tc.quota {
			t.Errorf("%s: quota %d, want %d", tc.cpu, got, tc.quota)
		}
	}
}

func TestNames(t *testing.T) {
	for slice, want := range map[string]string{
		"kubepods.slice": "/kubepods.slice", "kubepods-burstable.slice": "/kubepods.slice/kubepods-burstable.slice", "-.slice": "/",
		"a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice",
	} {
		if got, err := expandSlice(slice); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", slice, got, err, want)
		}
	}
	for _, bad := range []string{"a--b.slice", "-a.slice", "a/b.slice", "a"} {
		if got, err := expandSlice(bad); err == nil {
			t.Errorf("%s: got %s, want an error", bad, got)
		}
	}
	for component, want := range map[string]types.UID{
		"kubepods-burstable-pod11_22.slice": "11-22", "kubepods-pod1.slice": "1", "kubepods-burstable.slice": "", "cri-containerd-x.scope": "",
	} {
		if got, ok := podUID(component, true); ok != (want != "") || ok && got != want {
			t.Errorf("%s: got UID %q, want %q", component, got, want)
		}
	}
	if got, ok := podUID("pod11-22", false); !ok || got != "11-22" {
		t.Errorf("pod11-22: got %q", got)
	}
	if got := (PodCgroup{Path: "/x", Unit: "kubepods-pod1.slice"}).ContainerPath("id"); got != "kubepods-pod1.slice:cri-containerd:id" {
		t.Errorf("container path is %s", got)
	}
}
