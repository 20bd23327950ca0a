//go:build systemd

package systemd

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

const (
	guaranteed = "{requests: {cpu: 500m, memory: 256Mi}, limits: {cpu: 500m, memory: 256Mi}}"
	burstable  = "{requests: {cpu: 250m, memory: 128Mi}, limits: {cpu: 500m, memory: 512Mi}}"
	sidecar    = "{requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}"
	initial    = "{requests: {cpu: 600m, memory: 300Mi}, limits: {cpu: 600m, memory: 300Mi}}"
)

// limits are what one cgroup is set to; an empty value is the kernel's default.
type limits struct {
	shares, weight int // on v1 and on v2
	quota          int // microseconds per 100 ms
	memory         int64
	pids           int
}

// examples are the three worked examples: Guaranteed, Burstable with an ordinary
// init container and a sidecar, BestEffort.
func (n *node) examples() {
	n.manifest("g", "  containers:\n"+container("c1", guaranteed, idle))
	n.manifest("b", "  initContainers:\n"+
		strings.Replace(container("s1", sidecar, idle), "{name: s1", "{name: s1, restartPolicy: Always", 1)+
		container("i1", initial, "until [ -e /shared/go ]; do sleep 0.2; done")+
		"  containers:\n"+container("c1", burstable, idle))
	n.manifest("e", "  containers:\n"+container("c1", "{}", idle))
}

func workedExamples(n *node) {
	n.examples()
	b := n.await("b", "in its init container", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) == 2 && p.Status.InitContainerStatuses[1].State.Running != nil
	})
	n.check("init container", scope(b, "i1"), limits{shares: 614, weight: 67, quota: 60000, memory: 314572800})
	n.checkScore("init container", scope(b, "i1"), n.score(300<<20))
	if err := os.WriteFile(filepath.Join(n.shared, "go"), nil, 0o644); err != nil {
		n.t.Fatal(err)
	}
	g, b, e := n.await("g", "ready", ready), n.await("b", "ready", ready), n.await("e", "ready", ready)

	cpu := n.cpus*1000 - 500
	shares := cpu * 1024 / 1000
	n.check("kubepods", "/kubepods.slice", limits{shares: shares, weight: 1 + (shares-2)*9999/262142, memory: podMemory, pids: n.maxPIDs() - 1000})
	n.check("burstable", "/kubepods.slice/kubepods-burstable.slice", limits{shares: 665, weight: 26})
	n.check("besteffort", "/kubepods.slice/kubepods-besteffort.slice", limits{shares: 2, weight: 1})
	n.check("Guaranteed pod", slice(g), limits{shares: 512, weight: 20, quota: 50000, memory: 268435456, pids: 1024})
	n.check("Burstable pod", slice(b), limits{shares: 665, weight: 26, quota: 70000, memory: 603979776, pids: 1024})
	n.check("BestEffort pod", slice(e), limits{shares: 2, weight: 1, pids: 1024})
	n.check("g.c1", scope(g, "c1"), limits{shares: 512, weight: 59, quota: 50000, memory: 268435456})
	n.check("b.s1", scope(b, "s1"), limits{shares: 51, weight: 11, quota: 10000, memory: 67108864})
	n.check("b.c1", scope(b, "c1"), limits{shares: 256, weight: 35, quota: 50000, memory: 536870912})
	n.check("e.c1", scope(e, "c1"), limits{shares: 2, weight: 1})
	n.checkScore("g.c1", scope(g, "c1"), -997)
	n.checkScore("b.s1", scope(b, "s1"), n.score(128<<20)) // the smallest app container's
	n.checkScore("b.c1", scope(b, "c1"), n.score(128<<20))
	n.checkScore("e.c1", scope(e, "c1"), 1000)
	if n.version == 2 {
		for file, want := range map[string]string{"memory.oom.group": "1", "memory.min": "0", "memory.low": "0", "memory.swap.max": "0"} {
			if got := n.value(scope(g, "c1"), file); got != want {
				n.t.Errorf("%s of a container is %s, want %s", file, got, want)
			}
		}
	}
	n.checkTree(slice(g), scope(g, "c1"), slice(b), scope(b, "s1"), scope(b, "c1"), slice(e), scope(e, "c1"))

	// The tier follows its pods at once.
	n.manifest("b2", "  containers:\n"+container("c1", "{requests: {cpu: 100m}}", idle))
	n.await("b2", "ready", ready)
	n.eventually("burstable has the weight of both its pods", func() error {
		file, want := "cpu.weight", "30" // of 750m
		if n.version == 1 {
			file, want = "cpu.shares", "768"
		}
		if got := n.value("/kubepods.slice/kubepods-burstable.slice", file); got != want {
			return fmt.Errorf("%s is %s, want %s", file, got, want)
		}
		return nil
	})
}

// check compares a cgroup's files, and its unit's properties, with want.
func (n *node) check(what, cgroup string, want limits) {
	n.t.Helper()
	got := map[string]string{}
	files, properties := n.expected(want)
	for name := range files {
		got[name] = n.value(cgroup, name)
	}
	if d := cmp.Diff(files, got); d != "" {
		n.t.Errorf("%s: files of %s (-want +got):\n%s", what, cgroup, d)
	}
	got = map[string]string{}
	properties["ActiveState"] = "active"
	shown := command(n.t, "systemctl", "show", path.Base(cgroup), "-p", strings.Join(slices.Collect(maps.Keys(properties)), ","))
	for line := range strings.Lines(shown) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[name] = value
	}
	if d := cmp.Diff(properties, got); d != "" {
		n.t.Errorf("%s: properties of %s (-want +got):\n%s", what, path.Base(cgroup), d)
	}
}

// expected is what files and unit properties say for limits.
func (n *node) expected(want limits) (files, properties map[string]string) {
	quota, perSecond := "max", "infinity"
	if want.quota > 0 {
		quota = strconv.Itoa(want.quota)
		perSecond = fmt.Sprintf("%dms", want.quota/100)
	}
	memory, limit := "max", "infinity"
	if want.memory > 0 {
		memory = strconv.FormatInt(want.memory, 10)
		limit = memory
	}
	properties = map[string]string{"CPUQuotaPerSecUSec": perSecond, "CPUAccounting": "yes", "MemoryAccounting": "yes", "TasksAccounting": "yes"}
	files = map[string]string{}
	if want.pids > 0 {
		files["pids.max"] = strconv.Itoa(want.pids)
		properties["TasksMax"] = strconv.Itoa(want.pids)
	}
	if n.version == 2 {
		files["cpu.weight"], files["cpu.max"], files["memory.max"] = strconv.Itoa(want.weight), quota+" 100000", memory
		properties["CPUWeight"], properties["MemoryMax"] = strconv.Itoa(want.weight), limit
		return files, properties
	}
	if want.quota == 0 {
		quota = "-1"
	}
	if want.memory == 0 {
		memory = "9223372036854771712" // no limit, in whole pages
	}
	files["cpu.shares"], files["cpu.cfs_quota_us"], files["memory.limit_in_bytes"] = strconv.Itoa(want.shares), quota, memory
	properties["CPUShares"], properties["MemoryLimit"] = strconv.Itoa(want.shares), limit
	return files, properties
}

func (n *node) maxPIDs() int {
	var least int
	for _, file := range []string{"pid_max", "threads-max"} {
		v, err := strconv.Atoi(strings.TrimSpace(read(n.t, "/proc/sys/kernel/"+file)))
		if err != nil {
			n.t.Fatal(err)
		}
		if least == 0 || v < least {
			least = v
		}
	}
	return least
}

// score is the oom_score_adj of a Burstable container that requests memory.
func (n *node) score(request int64) int { return int(1000 - 1000*request/n.memory) }

// checkScore compares the oom_score_adj of every process of a scope.
func (n *node) checkScore(what, scope string, want int) {
	n.t.Helper()
	if !n.mayProtect { // then nobody gets less than the agent has itself
		pid := command(n.t, "systemctl", "show", "nodeagent", "-p", "MainPID", "--value")
		own, err := strconv.Atoi(strings.TrimSpace(read(n.t, "/proc/"+pid+"/oom_score_adj")))
		if err != nil {
			n.t.Fatal(err)
		}
		want = max(want, own)
	}
	pids := strings.Fields(n.value(scope, "cgroup.procs"))
	if len(pids) == 0 {
		n.t.Errorf("%s has no process", what)
	}
	for _, pid := range pids {
		data, err := os.ReadFile("/proc/" + pid + "/oom_score_adj")
		if err != nil {
			continue // it has ended meanwhile
		}
		if got := strings.TrimSpace(string(data)); got != strconv.Itoa(want) {
			n.t.Errorf("%s: oom_score_adj of process %s is %s, want %d", what, pid, got, want)
		}
	}
}

// checkTree looks for cgroups in the tree that `systemctl status` draws.
func (n *node) checkTree(cgroups ...string) {
	n.t.Helper()
	out, err := exec.Command("systemctl", "status", "--full", "--no-pager", "kubepods.slice").Output()
	if err != nil {
		n.t.Fatal(err)
	}
	_, drawing, _ := strings.Cut(string(out), "CGroup: ")
	drawn := map[string]bool{}
	type level struct {
		column int
		path   string
	}
	root, drawing, _ := strings.Cut(drawing, "\n")
	stack := []level{{-1, strings.TrimSpace(root)}}
	for line := range strings.Lines(drawing) {
		column := strings.IndexFunc(line, unicode.IsLetter)
		digit := strings.IndexFunc(line, unicode.IsDigit)
		if column < 0 || digit >= 0 && digit < column { // the end, or a process
			continue
		}
		column = len([]rune(line[:column]))
		for stack[len(stack)-1].column >= column {
			stack = stack[:len(stack)-1]
		}
		p := path.Join(stack[len(stack)-1].path, strings.Fields(strings.TrimLeftFunc(line, func(r rune) bool { return !unicode.IsLetter(r) }))[0])
		stack = append(stack, level{column, p})
		drawn[p] = true
	}
	for _, c := range cgroups {
		if !drawn[c] {
			n.t.Errorf("%s is not in systemctl's tree:\n%s", c, out)
		}
	}
}
