//go:build integration

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// inventory lists all that pods leave on a machine, by where it is.
func (m *machine) inventory() map[string][]string {
	m.t.Helper()
	found := map[string][]string{}
	for _, what := range []string{"containers", "tasks", "leases", "snapshots"} {
		found["containerd "+what] = m.ctr(what)
	}
	for _, dir := range []string{"run/sandboxes", "run/containers", "run/pods", "root/pods", "log/pods", "log/containers", "run/addresses", "run/cni"} {
		found[dir] = m.filesIn(dir)
	}
	for _, root := range m.cgroupRoots() {
		found["cgroup "+root] = m.podCgroups(root)
	}
	out := m.output("nsenter", "--net=/run/netns/"+m.netns, "ip", "-o", "link", "show", "type", "veth")
	found["interfaces"] = fields(out, 1)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], m.dir+"/") {
			found["mounts"] = append(found["mounts"], f[4])
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, p := range procs {
		cmdline, err := os.ReadFile(p) // which may have ended
		if err == nil && strings.Contains(string(cmdline), "containerd-shim") && strings.Contains(string(cmdline), m.dir+"/") {
			found["shims"] = append(found["shims"], strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	for _, list := range found {
		slices.Sort(list)
	}
	return found
}

// ctr asks the embedded containerd itself.
func (m *machine) ctr(what string) []string {
	m.t.Helper()
	args := []string{"--address", m.dir + "/ctd/state/containerd.sock", "--namespace", "nodeagent", what, "ls"}
	if what == "snapshots" {
		list := fields(m.output(m.repo+"/.cache/bin/ctr", args...), 0)
		return slices.DeleteFunc(list, func(key string) bool { return key == "KEY" }) // the head of the table
	}
	return fields(m.output(m.repo+"/.cache/bin/ctr", append(args, "-q")...), 0)
}

func (m *machine) output(name string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// fields takes the nth word of each line.
func fields(text string, n int) []string {
	var list []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > n {
			list = append(list, f[n])
		}
	}
	return list
}

// filesIn lists a directory of the machine, below one level of directories.
func (m *machine) filesIn(dir string) []string {
	m.t.Helper()
	var list []string
	err := filepath.WalkDir(filepath.Join(m.dir, dir), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		// The plugin that gives out addresses keeps its lock, and where it goes on.
		if err == nil && !d.IsDir() && d.Name() != "lock" && !strings.HasPrefix(d.Name(), "last_reserved_ip") {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return list
}

func (m *machine) podCgroups(root string) []string {
	m.t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while we looked
		}
		if err == nil && d.IsDir() && path != root && !isTier(d.Name()) {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return list
}

// isTier says whether a cgroup is there whether pods are or not.
func isTier(name string) bool {
	return slices.Contains([]string{"kubepods", "burstable", "besteffort", "kubepods.slice", "kubepods-burstable.slice", "kubepods-besteffort.slice"}, name) ||
		!strings.Contains(name, "pod") // a systemd machine has others' below its root
}

// start and kill, without waiting for the agent to be of use in between.
func (m *machine) runFor(d time.Duration) {
	m.t.Helper()
	m.cmd = exec.Command("nsenter", "--net=/run/netns/"+m.netns, m.bin, "run", "--config", m.config)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	time.Sleep(d) // the moment of the crash, of which no two are alike
	m.kill()
}

// TestKilledAnywhere kills the agent at moments that no one chose, while twenty
// pods start, stop, crash and are replaced. In the end all is as wanted, and when
// nothing is wanted nothing is left.
func TestKilledAnywhere(t *testing.T) {
	const pods, crashes = 20, 16
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(t, "maxPods: 250", "")
	m.start()
	before := m.inventory()

	name := func(i int) string { return fmt.Sprintf("p%d", i) }
	manifest := func(i, version int) string {
		return strings.Replace(sleeper(name(i), "c"), "spec:\n", fmt.Sprintf("spec:\n  hostname: v%d\n", version), 1) +
			"    volumeMounts: [{name: memory, mountPath: /memory}]\n  volumes: [{name: memory, emptyDir: {medium: Memory}}]\n"
	}
	version := map[int]int{}
	for i := range pods {
		m.manifest(name(i)+".yaml", manifest(i, 0))
	}
	m.kill()
	for n := range crashes {
		m.runFor(time.Duration(random.IntN(1500)) * time.Millisecond)
		for range 4 {
			i := random.IntN(pods)
			if n%2 == 1 {
				version[i]++
				m.manifest(name(i)+".yaml", manifest(i, version[i]))
				continue
			}
			if err := os.Remove(filepath.Join(m.manifests, name(i)+".yaml")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	for i := range pods {
		m.manifest(name(i)+".yaml", manifest(i, version[i]))
	}
	m.start()
	for i := range pods {
		m.await(name(i), "ready in its last version", func(p *corev1.Pod) bool {
			return ready(p) && p.Spec.Hostname == fmt.Sprintf("v%d", version[i]) && len(p.Status.PodIPs) == 1
		})
	}
	m.checkNothingTwice(pods)
	for i := range pods {
		m.removeManifest(name(i) + ".yaml")
	}
	m.eventually("nothing of the pods is left", func() error {
		if d := cmp.Diff(before, m.inventory()); d != "" {
			return fmt.Errorf("(-before +after):\n%s", d)
		}
		return nil
	})
}

// checkNothingTwice looks at a machine with so many pods, of one container each.
func (m *machine) checkNothingTwice(pods int) {
	m.t.Helper()
	addresses := map[string]string{}
	for i := range pods {
		p, err := m.pod(fmt.Sprintf("p%d", i))
		if err != nil {
			m.t.Fatal(err)
		}
		if other, taken := addresses[p.Status.PodIP]; taken {
			m.t.Errorf("%s and %s have one address, %s", p.Name, other, p.Status.PodIP)
		}
		addresses[p.Status.PodIP] = p.Name
		if s := p.Status.ContainerStatuses[0]; s.RestartCount != 0 || s.LastTerminationState.Terminated != nil {
			m.t.Errorf("a start that was broken off is no restart: %s has %d, last %+v", p.Name, s.RestartCount, s.LastTerminationState.Terminated)
		}
	}
	m.eventually("there is one of everything for each pod", func() error {
		now := m.inventory()
		for _, what := range []string{"containerd containers", "containerd tasks", "interfaces", "shims", "run/pods"} {
			if n := len(now[what]); n != pods {
				return fmt.Errorf("%d %s for %d pods: %q", n, what, pods, now[what])
			}
		}
		return nil
	})
}
