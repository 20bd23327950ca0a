package main

import (
	"fmt"
	"strings"
)

// target is a number to keep below.
type target struct {
	name  string
	limit float64
	// value is what was measured, if it was.
	value func(*report) (float64, bool)
}

// targets are the project's own, for a machine of 2 CPUs on which the floor starts
// a pod in about 0.09 s and 250 in about 16 s. On another machine, or a busy one,
// the ratio to the floor says more.
func targets() []target {
	const us = "nodeagent"
	times := func(pods int, of func(*row) float64) func(*report) (float64, bool) {
		return func(r *report) (float64, bool) {
			x := r.row(us, pods)
			if x == nil {
				return 0, false
			}
			return of(x), of(x) > 0
		}
	}
	idle := func(pods int, of func(*usage) float64) func(*report) (float64, bool) {
		return func(r *report) (float64, bool) {
			u := r.idle(us, pods)
			if u == nil {
				return 0, false
			}
			return of(u), true
		}
	}
	start := func(x *row) float64 { return x.StartTotal }
	cpu := func(u *usage) float64 { return u.CPU + u.ContainerdCPU }
	memory := func(u *usage) float64 { return u.RSS }
	return []target{
		{"1 pod running, s", 0.13, times(1, start)},
		{"50 pods running, s", 3.2, times(50, start)},
		{"100 pods running, s", 7, times(100, start)},
		{"250 pods running, s", 18, times(250, start)},
		{"250 pods stopped to the last shim, s", 9, times(250, func(x *row) float64 { return x.StopTotal })},
		{"container killed → running again, s", 0.1, times(1, func(x *row) float64 { return x.Restart.P50 })},
		{"agent killed → 100 pods adopted, s", 1, times(100, func(x *row) float64 { return x.AdoptSeconds })},
		{"idle CPU of agent and containerd at 100 pods, % of a core", 0.5, idle(100, cpu)},
		{"idle CPU of agent and containerd at 250 pods, % of a core", 1, idle(250, cpu)},
		{"memory of the agent without pods, MB", 35, idle(0, memory)},
		{"memory of the agent at 100 pods, MB", 50, idle(100, memory)},
		{"memory of the agent at 250 pods, MB", 60, idle(250, memory)},
		// The log holder is one process for all pods.
		{"processes per pod besides its own, at 100 pods", 1.02, idle(100, func(u *usage) float64 { return u.PerPod })},
	}
}

// verdicts compares the agent with its targets.
func (r *report) verdicts() string {
	var b strings.Builder
	b.WriteString("\n## Targets of the agent\n\n| | target | measured | |\n|---|---|---|---|\n")
	for _, t := range targets() {
		got, measured := t.value(r)
		if !measured {
			continue
		}
		verdict := "met"
		if got > t.limit {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | ≤ %g | %.3g | %s |\n", t.name, t.limit, got, verdict)
	}
	return b.String()
}
