package stats

import (
	"context"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// machine is a node with one pod of two containers, of which one runs.
type machine struct {
	cgroups map[string]qos.Stat
	layers  int // how often one was counted
}

func newMachine(t *testing.T) (*machine, *Reader) {
	t.Helper()
	m := &machine{cgroups: map[string]qos.Stat{
		"/":               {CPU: qos.CPUStat{Nanoseconds: 100e9}},
		"/kubepods":       {CPU: qos.CPUStat{Nanoseconds: 50e9}, Memory: qos.MemoryStat{Usage: 2000, WorkingSet: 1500}},
		"/kubepods/pod":   {CPU: qos.CPUStat{Nanoseconds: 20e9}, Memory: qos.MemoryStat{Usage: 900, WorkingSet: 800, RSS: 700, Limit: 1000, Swap: 5}},
		"/kubepods/pod/c": {CPU: qos.CPUStat{Nanoseconds: 10e9}, Memory: qos.MemoryStat{Usage: 90, WorkingSet: 80, RSS: 70}, Pressure: map[string]qos.Pressure{"cpu": {Some: qos.Waiting{Avg10: 1}}}},
	}}
	proc := t.TempDir()
	for file, text := range map[string]string{
		"meminfo":            "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\nAnonPages: 200 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n",
		"vmstat":             "pgfault 11\npgmajfault 12\n",
		"stat":               "cpu  1 2 3 4 5 6 7 8 9 10\nbtime 946684000\n",
		"loadavg":            "0.1 0.2 0.3 1/234 5678\n",
		"sys/kernel/pid_max": "4096\n",
		"net/dev":            "Inter-|\n face |\n lo: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n wlan0: 9 8 7 6 0 0 0 0 5 4 3 2 0 0 0 0\n eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n",
		"77/net/dev":         "Inter-|\n face |\n lo: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\neth0:10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n",
	} {
		path := filepath.Join(proc, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	logs := t.TempDir()
	if err := os.WriteFile(filepath.Join(logs, "0.log"), make([]byte, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid"}, Status: corev1.PodStatus{StartTime: &metav1.Time{Time: time.Now()}}}
	ended := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ended", UID: "ended"}}
	r := New(Config{
		NodeName: "node", ProcRoot: proc, System: map[string]string{"pods": "/kubepods", "gone": "/gone"}, RootDir: proc,
		Cgroup: func(path string) (qos.Stat, error) {
			s, ok := m.cgroups[path]
			if !ok {
				return s, fs.ErrNotExist
			}
			return s, nil
		},
		Processes: func(string) ([]int, error) { return []int{77, 78}, nil },
		Pods:      func() []corev1.Pod { return []corev1.Pod{pod, ended} },
		PodCgroup: func(p *corev1.Pod) string { return "/kubepods/" + p.Name },
		Observed: func(uid types.UID) (cri.Pod, bool) {
			if uid != "uid" {
				return cri.Pod{}, false
			}
			return cri.Pod{UID: uid, Sandbox: &cri.Sandbox{}, Containers: []cri.Container{
				{ID: "c", Name: "main", State: cri.Running, PID: 77, CgroupPath: "/kubepods/pod/c", StartedAt: time.Now(), LogPath: filepath.Join(logs, "0.log"), Image: "image"},
				{ID: "b", Name: "main", State: cri.Exited, CgroupPath: "/kubepods/pod/b"},
			}}, true
		},
		Layer: func(context.Context, string) (cri.LayerUsage, error) {
			m.layers++
			return cri.LayerUsage{Bytes: 100, Inodes: 3}, nil
		},
		Images: func(context.Context) (string, uint64, error) { return proc, 5000, nil },
	})
	return m, r
}

func TestSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r := newMachine(t)
		time.Sleep(10 * time.Second)
		got, err := r.Summary(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		ignore := cmp.Options{
			cmpopts.IgnoreTypes(metav1.Time{}),
			cmpopts.IgnoreFields(statsapi.FsStats{}, "AvailableBytes", "CapacityBytes", "Inodes", "InodesFree"), // of whatever machine this is
		}
		want := statsapi.PodStats{
			PodRef:  statsapi.PodReference{Name: "pod", Namespace: "ns", UID: "uid"},
			CPU:     &statsapi.CPUStats{UsageCoreNanoSeconds: new(uint64(20e9)), UsageNanoCores: new(uint64(2e9))},
			Memory:  &statsapi.MemoryStats{AvailableBytes: new(uint64(200)), UsageBytes: new(uint64(900)), WorkingSetBytes: new(uint64(800)), RSSBytes: new(uint64(700)), PageFaults: new(uint64), MajorPageFaults: new(uint64)},
			Swap:    &statsapi.SwapStats{SwapUsageBytes: new(uint64(5)), SwapAvailableBytes: new(uint64)},
			Network: &statsapi.NetworkStats{InterfaceStats: eth0(10, 50), Interfaces: []statsapi.InterfaceStats{eth0(10, 50)}},
			Containers: []statsapi.ContainerStats{{
				Name:   "main",
				CPU:    &statsapi.CPUStats{UsageCoreNanoSeconds: new(uint64(10e9)), UsageNanoCores: new(uint64(10e9)), PSI: &statsapi.PSIStats{Some: statsapi.PSIData{Avg10: 1}}},
				Memory: &statsapi.MemoryStats{UsageBytes: new(uint64(90)), WorkingSetBytes: new(uint64(80)), RSSBytes: new(uint64(70)), PageFaults: new(uint64), MajorPageFaults: new(uint64)},
				Swap:   &statsapi.SwapStats{SwapUsageBytes: new(uint64), SwapAvailableBytes: new(uint64)},
				Rootfs: &statsapi.FsStats{UsedBytes: new(uint64(100)), InodesUsed: new(uint64(3))},
				Logs:   &statsapi.FsStats{UsedBytes: new(uint64(8192)), InodesUsed: new(uint64(1))},
			}},
			EphemeralStorage: &statsapi.FsStats{UsedBytes: new(uint64(8292)), InodesUsed: new(uint64(4))},
			ProcessStats:     &statsapi.ProcessStats{ProcessCount: new(uint64(2))},
		}
		// The fake's containers began when they were asked for, one of the pod's 10 s ago.
		want.Containers[0].CPU.UsageNanoCores = nil
		if d := cmp.Diff([]statsapi.PodStats{want}, got.Pods, ignore); d != "" {
			t.Errorf("a pod that runs, and none that does not (-want +got):\n%s", d)
		}
		n := got.Node
		if *n.Memory.UsageBytes != 600<<10 || *n.Memory.WorkingSetBytes != 500<<10 || *n.Memory.AvailableBytes != 500<<10 || *n.Swap.SwapUsageBytes != 30<<10 {
			t.Errorf("the node's memory is the kernel's: %+v", n.Memory)
		}
		if n.Network.Name != "eth0" || *n.Network.TxErrors != 7 || len(n.Network.Interfaces) != 2 {
			t.Errorf("loopback is nobody's traffic, eth0 the default: %+v", n.Network)
		}
		if len(n.SystemContainers) != 1 || n.SystemContainers[0].Name != "pods" || *n.SystemContainers[0].CPU.UsageCoreNanoSeconds != 50e9 {
			t.Errorf("what is not there is left out: %+v", n.SystemContainers)
		}
		if *n.Runtime.ImageFs.UsedBytes != 5000 || *n.Rlimit.MaxPID != 4096 || *n.Rlimit.NumOfRunningProcesses != 234 {
			t.Errorf("images and processes: %+v %+v", n.Runtime, n.Rlimit)
		}
	})
}

func eth0(rx, tx uint64) statsapi.InterfaceStats {
	return statsapi.InterfaceStats{Name: "eth0", RxBytes: &rx, RxErrors: new(uint64(3)), TxBytes: &tx, TxErrors: new(uint64(7))}
}

func TestOnlyCPUAndMemory(t *testing.T) {
	m, r := newMachine(t)
	got, err := r.Summary(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if got.Node.Fs != nil || got.Pods[0].Network != nil || m.layers > 0 {
		t.Errorf("nothing else is looked for: %+v", got.Node)
	}
}

func TestDisksAreNotReadEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMachine(t)
		for range 10 {
			if _, err := r.Summary(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		if m.layers != 1 {
			t.Errorf("a layer was counted %d times in 50 s", m.layers)
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMachine(t)
		use := func(s uint64) uint64 {
			m.cgroups["/kubepods/pod"] = qos.Stat{CPU: qos.CPUStat{Nanoseconds: s * 1e9}}
			got, err := r.Summary(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			return *got.Pods[0].CPU.UsageNanoCores / 1e8
		}
		time.Sleep(20 * time.Second)
		if got := use(20); got != 10 {
			t.Errorf("the first time since it began: %d tenths of a CPU", got)
		}
		time.Sleep(20 * time.Second)
		if got := use(30); got != 5 {
			t.Errorf("then since the last time: %d", got)
		}
		time.Sleep(2 * time.Second)
		if got := use(41); got != 9 {
			t.Errorf("but not over a moment: %d", got)
		}
		time.Sleep(30 * time.Second)
		if got := use(10); got == 0 {
			t.Errorf("one of that name that began anew is not negative: %d", got)
		}
	})
}

// TestResources reads the metrics as metrics-server does: every value of a node, a
// container and its start, with the time at which it was so.
func TestResources(t *testing.T) {
	_, r := newMachine(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.Resources())
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range []string{
		"node_cpu_usage_seconds_total", "node_memory_working_set_bytes", "pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes", "pod_swap_usage_bytes",
		"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_swap_usage_bytes",
	} {
		for _, m := range families[name].GetMetric() {
			if m.GetTimestampMs() == 0 {
				t.Errorf("%s has no time", name)
			}
			got = append(got, strings.TrimSpace(name+" "+labelsOf(m)))
			if v := m.GetCounter().GetValue() + m.GetGauge().GetValue(); v == 0 && !strings.Contains(name, "swap") {
				t.Errorf("%s is 0", name)
			}
		}
	}
	want := []string{
		"node_cpu_usage_seconds_total", "node_memory_working_set_bytes", "pod_cpu_usage_seconds_total ns pod", "pod_memory_working_set_bytes ns pod", "pod_swap_usage_bytes ns pod",
		"container_cpu_usage_seconds_total main ns pod", "container_memory_working_set_bytes main ns pod", "container_swap_usage_bytes main ns pod",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if families["container_start_time_seconds"] == nil || families["resource_scrape_error"].GetMetric()[0].GetGauge().GetValue() != 0 {
		t.Errorf("start and error: %v", families)
	}
}

func labelsOf(m *dto.Metric) string {
	var out []string
	for _, l := range m.GetLabel() {
		out = append(out, l.GetValue())
	}
	return strings.Join(out, " ")
}

func TestContainers(t *testing.T) {
	_, r := newMachine(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.Containers())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] = labelsOf(m) // the last: the container, where there is one
		}
	}
	for name, want := range map[string]string{
		"container_memory_rss":                  "main /kubepods/pod/c image c ns pod",
		"container_cpu_usage_seconds_total":     "main /kubepods/pod/c image c ns pod",
		"container_network_receive_bytes_total": " /kubepods/pod  eth0  ns pod",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}
