package node

import "testing"

func TestNoOSLabel(t *testing.T) {
	for _, none := range []bool{false, true} {
		labels := (&Config{NoOSLabel: none}).own("m")
		for _, key := range []string{"kubernetes.io/os", "beta.kubernetes.io/os"} {
			if _, has := labels[key]; has == none {
				t.Errorf("NoOSLabel %t: label %s there: %t", none, key, has)
			}
		}
		if labels["kubernetes.io/hostname"] != "m" {
			t.Errorf("labels are %v", labels)
		}
	}
}
