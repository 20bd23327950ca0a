package qos

import (
	"testing"
)

func TestSwapAndThrottling(t *testing.T) {
	pods := examplePods()
	factor := 0.9
	limited := exampleTree(t, 2, false, func(c *Config) { c.SwapBehavior = "LimitedSwap"; c.MemoryThrottlingFactor = &factor })
	for name, tc := range map[string]struct{ swap, high string }{
		"B1.c1": {"33554432", "496603136"}, "B1.c2": {"16777216", "127504384"}, "B2.c2": {"16777216", "6771281920"},
		"B3.s1": {"8388608", "63750144"}, "B3.i1": {"0", ""}, "G.c1": {"0", ""}, "E.c1": {"0", "6764572672"},
		"P.c1": {"0", ""}, "P.c2": {"33554432", "255012864"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pods[name[:len(name)-3]]
			for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
				if c.Name != name[len(name)-2:] {
					continue
				}
				u := limited.Container(p, &c).Linux.Unified
				if u["memory.swap.max"] != tc.swap || u["memory.high"] != tc.high {
					t.Errorf("swap %q, high %q, want %q, %q", u["memory.swap.max"], u["memory.high"], tc.swap, tc.high)
				}
			}
		})
	}
	_, settings, err := limited.Plan(pods["P"])
	if err != nil {
		t.Fatal(err)
	}
	if got := written(settings)["memory.high"]; got != "1020051456" {
		t.Errorf("memory.high of pod P is %q, want 1020051456", got)
	}
}
