package qos

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestShareOfTheMachine(t *testing.T) {
	cases := map[string]struct {
		reason string
		parts  map[corev1.ResourceName]string
		want   map[corev1.ResourceName]string // nil: refused
	}{
		"All":        {"nothing said is everything", nil, map[corev1.ResourceName]string{"cpu": "4", "memory": "8Gi", "pods": "110"}},
		"Quantities": {"", map[corev1.ResourceName]string{"cpu": "1500m", "memory": "1Gi"}, map[corev1.ResourceName]string{"cpu": "1500m", "memory": "1Gi", "pods": "110"}},
		"Percent":    {"of a CPU in thousandths, of memory in bytes", map[corev1.ResourceName]string{"cpu": "12.5%", "memory": "25%"}, map[corev1.ResourceName]string{"cpu": "500m", "memory": "2Gi", "pods": "110"}},
		"Absent":     {"a machine whose disk cannot be measured", map[corev1.ResourceName]string{"ephemeral-storage": "1Gi"}, map[corev1.ResourceName]string{"cpu": "4", "memory": "8Gi", "pods": "110"}},
		"TooMuch":    {"the scheduler would believe it", map[corev1.ResourceName]string{"memory": "9Gi"}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := corev1.ResourceList{
				"cpu": *resource.NewQuantity(4, resource.DecimalSI), "memory": *resource.NewQuantity(8<<30, resource.BinarySI),
				"pods": *resource.NewQuantity(110, resource.DecimalSI),
			}
			err := (&NodeSettings{Capacity: tc.parts}).share(got)
			if tc.want == nil {
				if err == nil {
					t.Errorf("%s: accepted as %v", tc.reason, got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			text := map[corev1.ResourceName]string{}
			for r, q := range got {
				text[r] = q.String()
			}
			if d := cmp.Diff(tc.want, text); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}
