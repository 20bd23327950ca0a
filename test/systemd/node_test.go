//go:build systemd

package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	manifests = "/etc/kubernetes/manifests"
	// patience bounds how long a state may take to come; it is no measure of speed.
	patience = 3 * time.Minute
	// podMemory is what all pods may use together, little enough that a hog is soon
	// stopped and the machine never feels it.
	podMemory = 900 << 20
	// systemMemory is what is set aside for the system.
	systemMemory = 64 << 20
)

// node is the agent as a service of this machine.
type node struct {
	t       *testing.T
	version int    // of the cgroups
	shared  string // a directory that pods see as /shared
	memory  int64  // of the machine, in bytes
	cpus    int
	// mayProtect says whether scores below the agent's own can be given.
	mayProtect bool
}

// TestNode installs the agent once; what it proves follows in order.
func TestNode(t *testing.T) {
	n := install(t)
	for _, proof := range []struct {
		name string
		run  func(*node)
	}{
		{"WorkedExamples", workedExamples},
		{"RestartsOfSystemdAndDBus", restarts},
		{"MemoryHog", memoryHog},
		{"CPUShares", cpuShares},
		{"Orphans", orphans},
	} {
		t.Run(proof.name, func(t *testing.T) { proof.run(n.in(t)) })
	}
}

// in is the node as seen by another test, which leaves no pods.
func (n *node) in(t *testing.T) *node {
	other := *n
	other.t = t
	t.Cleanup(func() {
		other.eventually("all pods are gone", func() error {
			out, err := exec.Command("nodeagent", "get", "pods", "-o", "name").CombinedOutput()
			if err != nil || strings.Contains(string(out), "-node") {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	})
	return &other
}

// install sets the agent up as its users do: binary, configuration and unit.
func install(t *testing.T) *node {
	t.Helper()
	root, err := filepath.Abs(repo)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, version: 1, shared: t.TempDir()}
	if exists("/sys/fs/cgroup/cgroup.controllers") {
		n.version = 2
	}
	n.look()
	config := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
podPidsLimit: 1024
systemReserved: {cpu: 300m, memory: "%d", pid: "1000"}
kubeReserved: {cpu: 200m, memory: "%d"}
---
apiVersion: nodeagent.dev/v1alpha1
kind: NodeAgentConfiguration
nodeName: node
runtime: embedded
runtimeBinDirs: [%[3]s/.cache/bin]
cniBinDirs: [%[3]s/.cache/cni]
imageDir: %[3]s/.cache/images
crashLoopBackOff: {initial: 1s, max: 5s}
`, systemMemory, n.memory-systemMemory-podMemory, root)
	for path, text := range map[string]string{
		"/etc/nodeagent/config.yaml":            config,
		"/etc/systemd/system/nodeagent.service": read(t, root+"/manifests/systemd/nodeagent.service"),
		"/etc/default/nodeagent":                "",
		manifests + "/.of-the-tests":            "",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "install", "-D", root+"/bin/nodeagent", "/usr/local/bin/nodeagent")
	command(t, "systemctl", "daemon-reload")
	t.Cleanup(n.remove)
	command(t, "systemctl", "start", "nodeagent") // a Type=notify service: it is ready afterwards
	return n
}

// look reads what the expected values depend on.
func (n *node) look() {
	n.t.Helper()
	for line := range strings.Lines(read(n.t, "/proc/meminfo")) {
		if f := strings.Fields(line); f[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				n.t.Fatal(err)
			}
			n.memory = kb * 1024
		}
	}
	n.cpus, _ = strconv.Atoi(command(n.t, "nproc"))
	for line := range strings.Lines(read(n.t, "/proc/self/status")) {
		if mask, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			if err != nil {
				n.t.Fatal(err)
			}
			n.mayProtect = bits>>24&1 == 1 // CAP_SYS_RESOURCE
		}
	}
}

// remove takes the agent and its pods down, and checks that nothing is left.
func (n *node) remove() {
	if n.t.Failed() {
		out, _ := exec.Command("journalctl", "-u", "nodeagent", "--no-pager", "-n", "200", "-o", "cat").Output()
		n.t.Logf("agent log:\n%s", out)
	}
	command(n.t, "systemctl", "stop", "nodeagent")
	command(n.t, "nodeagent", "down", "--config", "/etc/nodeagent/config.yaml")
	for _, dir := range n.dirs("/kubepods.slice") {
		if exists(dir) {
			n.t.Errorf("left behind after down: %s", dir)
		}
	}
	if units := command(n.t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "kubepods*", "cri-containerd-*"); units != "" {
		n.t.Errorf("units left behind after down:\n%s", units)
	}
	for _, path := range []string{"/etc/nodeagent", manifests, "/etc/default/nodeagent", "/etc/systemd/system/nodeagent.service"} {
		if err := os.RemoveAll(path); err != nil {
			n.t.Error(err)
		}
	}
	command(n.t, "systemctl", "daemon-reload")
}

// dirs are the directories of a cgroup under every controller.
func (n *node) dirs(cgroup string) []string {
	if n.version == 2 {
		return []string{"/sys/fs/cgroup" + cgroup}
	}
	var out []string
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "systemd"} {
		out = append(out, "/sys/fs/cgroup/"+c+cgroup)
	}
	return out
}

// file is a cgroup's file; the controller is the first part of its name.
func (n *node) file(cgroup, name string) string {
	if n.version == 2 {
		return filepath.Join("/sys/fs/cgroup", cgroup, name)
	}
	controller, _, _ := strings.Cut(name, ".")
	if controller == "cgroup" {
		controller = "memory"
	}
	return filepath.Join("/sys/fs/cgroup", controller, cgroup, name)
}

func (n *node) value(cgroup, name string) string {
	n.t.Helper()
	return strings.TrimSpace(read(n.t, n.file(cgroup, name)))
}

// manifest writes a pod whose containers are given as YAML, and removes it again
// when the test ends.
func (n *node) manifest(name, spec string) {
	n.t.Helper()
	text := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n"+
		"  volumes: [{name: shared, hostPath: {path: %s}}]\n%s", name, n.shared, spec)
	tmp := "/etc/kubernetes/." + name
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
	path := filepath.Join(manifests, name+".yaml")
	if err := os.Rename(tmp, path); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			n.t.Error(err)
		}
	})
}

// container is one container of a manifest, which runs a script.
func container(name, resources, script string) string {
	return fmt.Sprintf("  - {name: %s, image: demo/busybox:1, resources: %s, volumeMounts: [{name: shared, mountPath: /shared}], command: [sh, -c, %q]}\n", name, resources, script)
}

// idle is a script that does nothing until it is told to end.
const idle = "trap exit TERM; sleep 100000 & wait"

// pod reads a pod as a user does.
func (n *node) pod(name string) (*corev1.Pod, error) {
	out, err := exec.CommandContext(n.t.Context(), "nodeagent", "get", "pods", name, "-o", "json").Output()
	if err != nil {
		return nil, err
	}
	var p corev1.Pod
	return &p, json.Unmarshal(out, &p)
}

// await waits until a pod is as ok wants it.
func (n *node) await(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	n.t.Helper()
	var pod *corev1.Pod
	n.eventually(name+" is "+what, func() error {
		p, err := n.pod(name)
		if err != nil {
			return err
		}
		if pod = p; !ok(p) {
			status, err := json.Marshal(p.Status)
			return errors.Join(err, fmt.Errorf("status is %s", status))
		}
		return nil
	})
	return pod
}

// eventually polls: what it waits for is other processes' doing.
func (n *node) eventually(what string, f func() error) {
	n.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		began := time.Now()
		if err = f(); err == nil {
			return
		}
		// As long as the look took, so that looking leaves an emulated machine time
		// to do what is looked for.
		time.Sleep(max(time.Since(began), 100*time.Millisecond))
	}
	n.t.Errorf("%s: still not so after %s: %v", what, patience, err)
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// slice is the path of a pod's slice.
func slice(p *corev1.Pod) string {
	const root = "/kubepods.slice/"
	uid := "pod" + strings.ReplaceAll(string(p.UID), "-", "_") + ".slice"
	switch p.Status.QOSClass {
	case corev1.PodQOSBurstable:
		return root + "kubepods-burstable.slice/kubepods-burstable-" + uid
	case corev1.PodQOSBestEffort:
		return root + "kubepods-besteffort.slice/kubepods-besteffort-" + uid
	default:
		return root + "kubepods-" + uid
	}
}

// scope is the path of a container's scope.
func scope(p *corev1.Pod, container string) string {
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if s.Name == container {
			return slice(p) + "/cri-containerd-" + strings.TrimPrefix(s.ContainerID, "containerd://") + ".scope"
		}
	}
	return ""
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
