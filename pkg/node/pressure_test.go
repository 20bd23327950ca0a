package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestBelow(t *testing.T) {
	cases := map[string]struct {
		reason    string
		threshold string
		have      Signal
		want      bool
	}{
		"Plenty":     {"", "100Mi", Signal{200 << 20, 1 << 30}, false},
		"Little":     {"", "100Mi", Signal{50 << 20, 1 << 30}, true},
		"Equal":      {"only less than the threshold counts", "100Mi", Signal{100 << 20, 1 << 30}, false},
		"Percent":    {"of the capacity", "10%", Signal{9, 100}, true},
		"JustEnough": {"", "10%", Signal{10, 100}, false},
		"Zero":       {"turned off", "0%", Signal{0, 100}, false},
		"Whole":      {"turned off as well", "100%", Signal{0, 100}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Below(map[string]string{"memory.available": tc.threshold}, Signals{"memory.available": tc.have})
			if err != nil || (len(got) > 0) != tc.want {
				t.Errorf("%s: %v, %v", tc.reason, got, err)
			}
		})
	}
	if got, err := Below(map[string]string{"imagefs.available": "15%"}, Signals{}); err != nil || len(got) > 0 {
		t.Errorf("a signal that is not known: %v, %v", got, err)
	}
}

func TestStrain(t *testing.T) {
	s, now := Strain{}, noon()
	const stays = 5 * time.Minute
	steps := []struct {
		reason string
		after  time.Duration
		below  []string
		want   map[corev1.NodeConditionType]bool
	}{
		{"nothing yet", 0, nil, map[corev1.NodeConditionType]bool{}},
		{"seen", time.Minute, []string{"memory.available"}, map[corev1.NodeConditionType]bool{corev1.NodeMemoryPressure: true}},
		{"it stays for a while", 5*time.Minute + 59*time.Second, []string{"nodefs.inodesFree"}, map[corev1.NodeConditionType]bool{corev1.NodeMemoryPressure: true, corev1.NodeDiskPressure: true}},
		{"and goes", 6 * time.Minute, []string{"pid.available"}, map[corev1.NodeConditionType]bool{corev1.NodeDiskPressure: true, corev1.NodePIDPressure: true}},
		{"all of it", time.Hour, nil, map[corev1.NodeConditionType]bool{}},
	}
	for _, step := range steps {
		if d := cmp.Diff(step.want, s.Observe(step.below, now.Add(step.after), stays)); d != "" {
			t.Errorf("%s: -want +got:\n%s", step.reason, d)
		}
	}
	if got := s.Observe([]string{"pid.available"}, now, 0); !got[corev1.NodePIDPressure] {
		t.Error("without a period pressure is never seen")
	}
}

func TestReadSignals(t *testing.T) {
	s, err := ReadSignals("/proc", map[string]string{"nodefs": t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"memory.available", "pid.available", "nodefs.available"} {
		if v := s[name]; v.Available <= 0 || v.Available > v.Capacity {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
