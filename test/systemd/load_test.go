//go:build systemd

package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// restarts shakes systemd and D-Bus while pods start.
func restarts(n *node) {
	n.manifest("g", "  containers:\n"+container("c1", guaranteed, idle))
	n.manifest("e1", "  containers:\n"+container("c1", "{}", idle))
	command(n.t, "systemctl", "daemon-reexec")
	n.manifest("b", "  containers:\n"+container("c1", burstable, idle))
	n.manifest("e2", "  containers:\n"+container("c1", "{}", idle))
	command(n.t, "systemctl", "restart", "dbus")
	n.manifest("e3", "  containers:\n"+container("c1", "{}", idle))
	command(n.t, "systemctl", "daemon-reload")
	command(n.t, "systemctl", "daemon-reexec")
	for _, name := range []string{"e1", "e2", "e3"} {
		e := n.await(name, "ready", ready)
		n.check(name, slice(e), limits{shares: 2, weight: 1, pids: 1024})
	}
	g, b := n.await("g", "ready", ready), n.await("b", "ready", ready)
	for _, shake := range []string{"daemon-reload", "daemon-reexec"} {
		restored := n.spoil(slice(g))
		command(n.t, "systemctl", shake)
		n.eventually("the agent restores after "+shake+" what systemd does not know", restored)
		n.check("Guaranteed pod after "+shake, slice(g), limits{shares: 512, weight: 20, quota: 50000, memory: 268435456, pids: 1024})
		n.check("Burstable pod after "+shake, slice(b), limits{shares: 256, weight: 10, quota: 50000, memory: 536870912, pids: 1024})
		n.check("container after "+shake, scope(g, "c1"), limits{shares: 512, weight: 59, quota: 50000, memory: 268435456})
	}
	after := n.await("g", "still the same", ready)
	if scope(g, "c1") != scope(after, "c1") {
		n.t.Errorf("the container was replaced: %s, then %s", scope(g, "c1"), scope(after, "c1"))
	}
	if got := command(n.t, "systemctl", "show", "nodeagent", "-p", "NRestarts"); got != "NRestarts=0" {
		n.t.Errorf("the agent did not live through it: %s", got)
	}
}

// spoil changes a file that systemd has no property for, if the kernel has one,
// and returns whether it is as it was.
func (n *node) spoil(cgroup string) func() error {
	n.t.Helper()
	file := n.file(cgroup, "hugetlb.2MB.max")
	if !exists(file) {
		return func() error { return nil }
	}
	command(n.t, "sh", "-c", "echo 2097152 >"+file)
	return func() error {
		if got := strings.TrimSpace(read(n.t, file)); got != "0" {
			return fmt.Errorf("%s is %s, want 0", file, got)
		}
		return nil
	}
}

// memoryHog lets a BestEffort pod eat what all pods may have together.
func memoryHog(n *node) {
	n.manifest("g", "  containers:\n"+container("c1", guaranteed, "dd if=/dev/zero of=/dev/shm/x bs=1M count=32; "+idle))
	n.manifest("b", "  containers:\n"+container("c1", burstable, "dd if=/dev/zero of=/dev/shm/x bs=1M count=32; "+idle))
	n.manifest("e", "  containers:\n"+container("c1", "{}", idle))
	others := map[string]string{}
	for _, name := range []string{"g", "b", "e"} {
		others[name] = scope(n.await(name, "ready", ready), "c1")
	}
	n.manifest("hog", "  restartPolicy: Never\n  containers:\n"+container("c1", "{}", "exec dd if=/dev/zero of=/dev/null bs=1500M count=1"))
	hog := n.await("hog", "dead", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	reasons := []string{"OOMKilled"}
	if n.version == 1 { // where it is not always told when the limit that was hit is a level's above
		reasons = append(reasons, "Error")
	}
	if s := hog.Status.ContainerStatuses; len(s) != 1 || s[0].State.Terminated == nil || s[0].State.Terminated.ExitCode != 137 || !slices.Contains(reasons, s[0].State.Terminated.Reason) {
		n.t.Errorf("the hog ended with %+v, want 137 and one of %s", s, reasons)
	}
	for name, before := range others {
		p := n.await(name, "alive", ready)
		if after := scope(p, "c1"); after != before || p.Status.ContainerStatuses[0].RestartCount != 0 {
			n.t.Errorf("%s was harmed: %s, then %s", name, before, after)
		}
		if u := n.usage()[slice(p)]; u.OOMKills != 0 {
			n.t.Errorf("%d processes of %s were killed", u.OOMKills, name)
		}
	}
}

// cpuShares lets three pods ask for all there is.
func cpuShares(n *node) {
	const loop = "while :; do :; done"
	loops := strings.Repeat(loop+" & ", n.cpus) + loop
	// One more hundred millicores than this and it would not fit.
	request := n.cpus*1000 - 700
	all := fmt.Sprintf("{requests: {cpu: %[1]dm, memory: 16Mi}, limits: {cpu: %[1]dm, memory: 16Mi}}", request)
	n.manifest("g", "  containers:\n"+container("c1", all, loops))
	n.manifest("b", "  containers:\n"+container("c1", "{requests: {cpu: 50m}}", loops))
	n.manifest("e", "  containers:\n"+container("c1", "{}", loops))
	n.manifest("slow", "  containers:\n"+container("c1", "{requests: {cpu: 10m}, limits: {cpu: 20m}}", loop))
	names := []string{"g", "b", "e"}
	cgroups := map[string]string{}
	for _, name := range append(names, "slow") {
		cgroups[name] = slice(n.await(name, "ready", ready))
	}
	before, used := n.usage(), map[string]float64{}
	n.eventually("the Guaranteed pod has run for a while", func() error {
		now := n.usage()
		for _, name := range names {
			used[name] = float64(now[cgroups[name]].CPUNanoseconds - before[cgroups[name]].CPUNanoseconds)
		}
		if used["g"] < float64(2*time.Second) {
			return fmt.Errorf("used so far: %v ns", used)
		}
		return nil
	})
	// By weight it may have nine tenths, by its limit two thirds of two processors.
	// Three equals would have a third each.
	if share := used["g"] / (used["g"] + used["b"] + used["e"]); share < 0.5 {
		n.t.Errorf("the Guaranteed pod got %.0f %% of the CPU time: %v", share*100, used)
	}
	if used["b"] < 1.2*used["e"] {
		n.t.Errorf("the Burstable pod got no more than the BestEffort one: %v", used)
	}
	n.eventually("the pod with the low limit is throttled", func() error {
		u := n.usage()[cgroups["slow"]]
		if u.ThrottledPeriods == 0 || u.ThrottledNanoseconds == 0 || u.ThrottledPeriods > u.Periods {
			return fmt.Errorf("usage is %+v", u)
		}
		return nil
	})
	table := command(n.t, "nodeagent", "cgroups")
	row := regexp.MustCompile(`(?m)default/slow-node +.*max 20m .* (\d+) of (\d+) periods`).FindStringSubmatch(table)
	if row == nil {
		n.t.Fatalf("`nodeagent cgroups` shows no throttling of slow:\n%s", table)
	}
	if hit, err := strconv.Atoi(row[1]); err != nil || hit == 0 {
		n.t.Errorf("throttled in %s of %s periods", row[1], row[2])
	}
}

// usage is what `nodeagent cgroups` says of every cgroup, by its path.
func (n *node) usage() map[string]usage {
	n.t.Helper()
	var view struct{ Root group }
	if err := json.Unmarshal([]byte(command(n.t, "nodeagent", "cgroups", "-o", "json")), &view); err != nil {
		n.t.Fatal(err)
	}
	out := map[string]usage{}
	view.Root.collect(out)
	return out
}

type group struct {
	Path     string
	Usage    usage
	Children []group
}

type usage struct {
	CPUNanoseconds, OOMKills uint64
	Periods                  uint64 `json:"nrPeriods"`
	ThrottledPeriods         uint64 `json:"nrThrottled"`
	ThrottledNanoseconds     uint64
}

func (g *group) collect(into map[string]usage) {
	into[g.Path] = g.Usage
	for i := range g.Children {
		g.Children[i].collect(into)
	}
}

// orphans leaves a pod's slice behind, as a crash might, beside what is not ours.
func orphans(n *node) {
	command(n.t, "systemctl", "stop", "nodeagent")
	const deaf = "trap '' TERM; while :; do sleep 1; done" // to SIGTERM
	const orphan = "kubepods-besteffort-pod11111111_2222_3333_4444_555555555555.slice"
	units := map[string]string{"natest-orphan": orphan, "natest-guest": "kubepods-guest.slice", "natest-other": "natest.slice"}
	for unit, slice := range units {
		command(n.t, "systemd-run", "--unit="+unit, "--slice="+slice, "sh", "-c", deaf)
	}
	n.t.Cleanup(func() {
		for unit := range units {
			_ = exec.Command("systemctl", "kill", "--signal=KILL", unit).Run() // may be gone
			_ = exec.Command("systemctl", "stop", unit).Run()
			_ = exec.Command("systemctl", "reset-failed", unit).Run()
		}
		command(n.t, "systemctl", "stop", "natest.slice", "kubepods-guest.slice")
	})
	command(n.t, "systemctl", "start", "nodeagent")
	n.eventually("the orphan is gone", func() error {
		if exists(n.file("/kubepods.slice/kubepods-besteffort.slice/"+orphan, "cgroup.procs")) {
			return errors.New("it is still there")
		}
		return nil
	})
	for _, unit := range []string{"natest-guest", "natest-other"} {
		if state := command(n.t, "systemctl", "is-active", unit); state != "active" {
			n.t.Errorf("%s is not ours, and is %s now", unit, state)
		}
	}
}
