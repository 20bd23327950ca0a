package node

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

func TestMergeLabels(t *testing.T) {
	type labels = map[string]string
	cases := map[string]struct {
		reason             string
		have, before, want labels
		merged             labels
	}{
		"Fresh":      {"", nil, nil, labels{"a": "1"}, labels{"a": "1"}},
		"Others":     {"what others set stays", labels{"b": "2"}, nil, labels{"a": "1"}, labels{"a": "1", "b": "2"}},
		"Taken":      {"a label that was there before us is not ours", labels{"a": "0"}, nil, labels{"a": "1"}, labels{"a": "0"}},
		"Follows":    {"ours follows the configuration", labels{"a": "1"}, labels{"a": "1"}, labels{"a": "2"}, labels{"a": "2"}},
		"Overridden": {"someone has changed it since", labels{"a": "x"}, labels{"a": "1"}, labels{"a": "2"}, labels{"a": "x"}},
		"Removed":    {"someone has removed it since", labels{}, labels{"a": "1"}, labels{"a": "1"}, labels{}},
		"Dropped":    {"out of the configuration, off the node", labels{"a": "1"}, labels{"a": "1"}, nil, labels{}},
		"DroppedBut": {"unless it is someone else's by now", labels{"a": "x"}, labels{"a": "1"}, nil, labels{"a": "x"}},
		"Hostname":   {"the machine's own are kept true", labels{corev1.LabelHostname: "old"}, nil, labels{corev1.LabelHostname: "n1"}, labels{corev1.LabelHostname: "n1"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.merged, mergeLabels(tc.have, tc.before, tc.want)); d != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, d)
			}
		})
	}
}

func TestAdoptedAgainIsNoChange(t *testing.T) {
	n := New(Config{Name: "n1", Labels: map[string]string{"a": "1"}, Taints: []corev1.Taint{{Key: "t", Effect: corev1.TaintEffectNoSchedule}}, ProviderID: "p://1"})
	first := n.initial(healthy(), noon())
	if d := cmp.Diff(first, n.adopted(first, healthy())); d != "" {
		t.Errorf("-registered +adopted:\n%s", d)
	}
	if len(first.Spec.Taints) != 1 || first.Spec.ProviderID != "p://1" || first.Labels["a"] != "1" {
		t.Errorf("registered as %+v", first)
	}
	foreign := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	if got := n.adopted(foreign, healthy()); len(got.Spec.Taints) != 0 || got.Labels["a"] != "1" || got.Spec.ProviderID != "p://1" {
		t.Errorf("a Node that others made: %+v", got)
	}
}

func TestPatchReplacesAddresses(t *testing.T) {
	have := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	have.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"}, {Type: corev1.NodeHostName, Address: "n1"}}
	want := have.DeepCopy()
	want.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.2"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"}, {Type: corev1.NodeHostName, Address: "n1"}}
	patch, err := patchOf(have, want)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(have)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := strategicpatch.StrategicMergePatch(text, patch, corev1.Node{})
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.Node
	if err := json.Unmarshal(patched, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.Status.Addresses, got.Status.Addresses); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
