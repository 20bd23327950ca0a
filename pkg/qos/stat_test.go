package qos

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStat(t *testing.T) {
	const unlimited = "9223372036854771712"
	cases := map[string]struct {
		reason  string
		version int
		files   map[string]string
		want    Stat
	}{
		"V2": {
			"one directory, microseconds, pressure", 2,
			map[string]string{
				"cpu.stat":       "usage_usec 1500\nuser_usec 1000\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n",
				"memory.current": "1000\n", "memory.max": "4000\n", "memory.swap.current": "7\n", "memory.swap.max": "9\n",
				"memory.stat":  "anon 300\nfile 500\ninactive_file 400\npgfault 11\npgmajfault 12\n",
				"pids.current": "5\n", "cpu.pressure": "some avg10=1.50 avg60=2.00 avg300=3.00 total=40\nfull avg10=0.10 avg60=0.20 avg300=0.30 total=4\n",
			},
			Stat{
				CPU:    CPUStat{Nanoseconds: 1500000, Periods: 4, ThrottledPeriods: 3, ThrottledNanoseconds: 2000},
				Memory: MemoryStat{Usage: 1000, WorkingSet: 600, RSS: 300, Cache: 500, Limit: 4000, Swap: 7, SwapLimit: 9, PageFaults: 11, MajorPageFaults: 12},
				Tasks:  5, Pressure: map[string]Pressure{"cpu": {Some: Waiting{1.5, 2, 3, 40000}, Full: Waiting{0.1, 0.2, 0.3, 4000}}},
			},
		},
		"V2NoLimit": {
			"max is no number, and no limit", 2,
			map[string]string{"memory.current": "1000\n", "memory.max": "max\n", "memory.swap.max": "max\n", "memory.stat": "inactive_file 2000\n"},
			Stat{Memory: MemoryStat{Usage: 1000}, Pressure: map[string]Pressure{}},
		},
		"V1": {
			"totals include what is below", 1,
			map[string]string{
				"cpuacct.usage": "1500\n", "cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 2\n",
				"memory.usage_in_bytes": "1000\n", "memory.limit_in_bytes": "4000\n", "memory.memsw.limit_in_bytes": "4009\n",
				"memory.stat":  "rss 1\ntotal_rss 300\ntotal_cache 500\ntotal_inactive_file 400\ntotal_pgfault 11\ntotal_pgmajfault 12\ntotal_swap 7\n",
				"pids.current": "5\n",
			},
			Stat{
				CPU:    CPUStat{Nanoseconds: 1500, Periods: 4, ThrottledPeriods: 3, ThrottledNanoseconds: 2},
				Memory: MemoryStat{Usage: 1000, WorkingSet: 600, RSS: 300, Cache: 500, Limit: 4000, Swap: 7, SwapLimit: 9, PageFaults: 11, MajorPageFaults: 12},
				Tasks:  5,
			},
		},
		"V1NoLimit": {
			"a limit beyond all memory is none", 1,
			map[string]string{"memory.usage_in_bytes": "1000\n", "memory.limit_in_bytes": unlimited, "memory.memsw.limit_in_bytes": unlimited, "memory.stat": "total_rss 1\n"},
			Stat{Memory: MemoryStat{Usage: 1000, WorkingSet: 1000, RSS: 1}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			h := &hierarchy{root: root, version: tc.version, mounts: map[string]string{"": root}}
			for _, c := range []string{"cpu", "cpuacct", "memory", "pids"} {
				h.mounts[c] = root
			}
			if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range tc.files {
				if err := os.WriteFile(filepath.Join(root, "a/b", file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := h.stat("/a/b")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			if _, err := h.stat("/a/gone"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a cgroup that is gone: %v", err)
			}
		})
	}
}
