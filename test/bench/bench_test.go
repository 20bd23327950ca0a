package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantile(t *testing.T) {
	cases := map[string]struct {
		reason string
		times  []time.Duration
		q      float64
		want   float64
	}{
		"Nothing":  {reason: "what was not measured is 0, not a panic", q: 0.5},
		"One":      {reason: "of one time every quantile is that time", times: []time.Duration{time.Second}, q: 0.99, want: 1},
		"Median":   {reason: "the lower of the middle two, so that it is a time that was seen", times: []time.Duration{4e9, 1e9, 3e9, 2e9}, q: 0.5, want: 2},
		"P99Of10":  {reason: "of ten, the longest", times: []time.Duration{1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 5e9}, q: 0.99, want: 5},
		"Unsorted": {reason: "the order of measurement does not matter", times: []time.Duration{5e9, 1e9}, q: 1, want: 5},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, quantile(tc.times, tc.q)); diff != "" {
				t.Errorf("%s\n%s", tc.reason, diff)
			}
		})
	}
}

func TestVerdicts(t *testing.T) {
	base := func() *report {
		return &report{Rows: []row{
			{Subject: "floor", Pods: 50, StartTotal: 2.7},
			{Subject: "nodeagent", Pods: 50, StartTotal: 3.0},
		}}
	}
	cases := map[string]struct {
		reason string
		change func(*report)
		want   string
	}{
		"Met":        {reason: "within the limit is met", change: func(*report) {}, want: "| 50 pods running, s | ≤ 3.2 | 3 | met |\n"},
		"Missed":     {reason: "a miss is said", change: func(r *report) { r.Rows[1].StartTotal = 3.3 }, want: "| 50 pods running, s | ≤ 3.2 | 3.3 | **missed** |\n"},
		"NotOurs":    {reason: "nobody else's figures are judged", change: func(r *report) { r.Rows = r.Rows[:1] }},
		"IdleIsZero": {reason: "no cost at all is a measurement too", change: func(r *report) { r.Rows, r.Idle = nil, []idleRow{{Subject: "nodeagent", Pods: 250}} }, want: "| idle CPU of agent and containerd at 250 pods, % of a core | ≤ 1 | 0 | met |\n| memory of the agent at 250 pods, MB | ≤ 60 | 0 | met |\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := base()
			tc.change(r)
			_, got, _ := strings.Cut(r.verdicts(), "|---|---|---|---|\n")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\n%s", tc.reason, diff)
			}
		})
	}
}

func TestStages(t *testing.T) {
	begin := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	log := `{"time":"2026-11-25T08:59:00Z","msg":"step done","step":"ensure cgroup","took":9000000000}
{"time":"2026-11-25T09:00:00.010Z","msg":"pod taken on"}
{"time":"2026-11-25T09:00:00.020Z","msg":"pod taken on"}
{"time":"2026-11-25T09:00:01Z","msg":"step done","step":"ensure cgroup","took":4000000}
not JSON
{"time":"2026-11-25T09:00:01Z","msg":"step done","step":"start sandbox","took":40000000}
{"time":"2026-11-25T09:00:01Z","msg":"turn has come","step":"start sandbox","took":6000000}
{"time":"2026-11-25T09:00:01Z","msg":"network attached","took":20000000}
{"time":"2026-11-25T09:00:02Z","msg":"containerd called","method":"/containerd.services.tasks.v1.Tasks/Create","took":60000000}
{"time":"2026-11-25T09:00:02Z","msg":"step done","step":"start container c","took":80000000}
`
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	sums := map[string]time.Duration{}
	if err := addLines(sums, path, int64(strings.IndexByte(log, '\n'))+1, begin); err != nil {
		t.Fatal(err)
	}
	table := stageTable{Pods: 2, Rounds: 1}
	table.fill(sums, 300*time.Millisecond)
	got := map[string]float64{}
	for _, s := range table.Stages {
		if s.Mean != 0 {
			got[s.Name] = s.Mean
		}
	}
	want := map[string]float64{ // the mean of two pods; lines before the offset do not count
		"manifest seen, read, pod admitted": 15, "cgroup": 2, "sandbox: waiting for a turn": 3, "sandbox: network, by CNI plugins": 10,
		"sandbox: files and the rest": 7, "container: shim and runc create": 30, "container: spec, log and the rest": 10, "manifest → running": 150,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTicks(t *testing.T) {
	for limit, want := range map[float64][]float64{
		250: {0, 50, 100, 150, 200, 250},
		46:  {0, 10, 20, 30, 40},
		1:   {0, 0.2, 0.4, 0.6, 0.8, 1},
	} {
		got := ticks(limit)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })); diff != "" {
			t.Errorf("up to %g: %s", limit, diff)
		}
	}
}
