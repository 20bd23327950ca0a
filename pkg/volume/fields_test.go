package volume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestFieldValue(t *testing.T) {
	pod := basePod()
	pod.Status = corev1.PodStatus{
		HostIP: "10.0.0.1", PodIP: "10.1.0.2", PodIPs: []corev1.PodIP{{IP: "10.1.0.2"}, {IP: "fd00::2"}}, HostIPs: []corev1.HostIP{{IP: "10.0.0.1"}},
	}
	cases := map[string]string{
		"metadata.name": "web-node", "metadata.namespace": "default", "metadata.uid": "0123456789abcdef",
		"metadata.labels": "app=\"web\"\ntier=\"a \\\"b\\\"\"", "metadata.annotations": `note="two\nlines"`,
		"metadata.labels['app']": "web", "metadata.labels['none']": "", "metadata.annotations['note']": "two\nlines",
		"spec.nodeName": "node", "spec.serviceAccountName": "", "status.hostIP": "10.0.0.1", "status.hostIPs": "10.0.0.1",
		"status.podIP": "10.1.0.2", "status.podIPs": "10.1.0.2,fd00::2",
	}
	for path, want := range cases {
		if got, err := FieldValue(pod, path); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"", "metadata.labels['app'", "spec.containers", "status.phase['x']"} {
		if got, err := FieldValue(pod, path); err == nil {
			t.Errorf("%q is %q, want an error", path, got)
		}
	}
}

func TestResourceValue(t *testing.T) {
	set := newSet(t, nil)
	unlimited := func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Limits = nil }
	cases := map[string]struct {
		reason            string
		change            func(*corev1.Pod)
		resource, divisor string
		want              string
	}{
		"CPU":        {"whole cores, rounded up", nil, "limits.cpu", "", "2"},
		"Millicores": {"in units of the divisor", nil, "limits.cpu", "1m", "1500"},
		"Bytes":      {"bytes are the unit", nil, "requests.memory", "", "67108864"},
		"Mebibytes":  {"in units of the divisor", nil, "limits.memory", "1Mi", "128"},
		"RoundedUp":  {"a part counts in full", nil, "limits.memory", "1Gi", "1"},
		"NoLimit":    {"it may use the node", unlimited, "limits.memory", "1Mi", "1024"},
		"NoLimitCPU": {"it may use the node", unlimited, "limits.cpu", "", "2"},
		"LimitOfPod": {"or what the pod may use", func(p *corev1.Pod) {
			unlimited(p)
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("512Mi")}}
		}, "limits.memory", "1Mi", "512"},
		"NoRequest":   {"nothing is asked for", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = nil }, "requests.cpu", "", "0"},
		"BadResource": {"only requests and limits are known", nil, "usage.cpu", "", ""},
		"NoKind":      {"only requests and limits are known", nil, "cpu", "", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.change != nil {
				tc.change(pod)
			}
			ref := &corev1.ResourceFieldSelector{ContainerName: "c", Resource: tc.resource}
			if tc.divisor != "" {
				ref.Divisor = resource.MustParse(tc.divisor)
			}
			got, err := set.ResourceValue(pod, nil, ref)
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%s: got %q, %v, want %q", tc.reason, got, err, tc.want)
			}
		})
	}
	if _, err := set.ResourceValue(basePod(), nil, &corev1.ResourceFieldSelector{ContainerName: "x", Resource: "limits.cpu"}); err == nil {
		t.Error("a container that does not exist has a limit")
	}
}
