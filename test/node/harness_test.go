//go:build integration

package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// image is the demo image that `make demo-image` builds from Debian's busybox.
const image = "demo/busybox:1"

// patience bounds how long a state may take to come, in an emulated machine too;
// it is no measure of speed.
const patience = 3 * time.Minute

// machine is one agent with everything it needs, apart from the rest of the
// host: directories, a network namespace and a cgroup root of its own.
type machine struct {
	t         *testing.T
	dir       string // short: unix socket paths below must fit 106 bytes
	bin       string // the agent's binary
	repo      string
	netns     string
	manifests string
	config    string
	images    string // the image directory, which tests share unless they write to it
	// cgroupRoot keeps the tests apart from the host's own cgroups where they are
	// plain directories; a machine with systemd is a test machine as a whole.
	cgroupRoot string
	cmd        *exec.Cmd
	log        *os.File
}

// newMachine prepares a machine; the agent is not started yet. extra is added to
// the agent's own configuration document.
func newMachine(t *testing.T, kubelet, extra string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests need root: run `make test` as root")
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "na")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // as the agent's own directories: user namespaces pass through
		t.Fatal(err)
	}
	m := &machine{t: t, dir: dir, repo: repo, netns: filepath.Base(dir), manifests: dir + "/manifests", config: dir + "/config.yaml", images: repo + "/.cache/images"}
	m.bin = os.Getenv("NODEAGENT_BIN")
	if m.bin == "" {
		m.bin = repo + "/bin/nodeagent"
	}
	if err := os.Mkdir(m.manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	m.must("ip", "netns", "add", m.netns)
	m.must("nsenter", "--net=/run/netns/"+m.netns, "ip", "link", "set", "lo", "up")
	m.cgroupRoot = "/"
	if !exists("/run/systemd/system") {
		m.makeCgroupRoot()
	}
	// Registered before the agent starts, so that it runs after the agent was stopped.
	t.Cleanup(m.remove)
	m.writeConfig(kubelet, extra)
	return m
}

// makeCgroupRoot makes a cgroup of this machine's own in every v1 controller, or
// in the unified hierarchy.
func (m *machine) makeCgroupRoot() {
	m.t.Helper()
	m.cgroupRoot = "/" + m.netns
	for _, dir := range m.cgroupRoots() {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			m.t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 leaves them empty, and the cgroup unusable
			parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), parent, 0o644); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// cgroupRoots are the directories of cgroupRoot, one for each v1 controller or
// one on v2.
func (m *machine) cgroupRoots() []string {
	if exists("/sys/fs/cgroup/cgroup.controllers") {
		return []string{"/sys/fs/cgroup" + m.cgroupRoot}
	}
	mounts, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		m.t.Fatal(err)
	}
	var dirs []string
	for _, p := range mounts {
		dirs = append(dirs, filepath.Dir(p)+m.cgroupRoot)
	}
	return dirs
}

func (m *machine) writeConfig(kubelet, extra string) {
	text := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %[1]s/manifests
cgroupRoot: %[2]s
%[3]s
---
apiVersion: nodeagent.dev/v1alpha1
kind: NodeAgentConfiguration
nodeName: node
runtime: embedded
runtimeDir: %[1]s/ctd
rootDir: %[1]s/root
stateDir: %[1]s/run
logDir: %[1]s/log/pods
containerLogDir: %[1]s/log/containers
imageDir: %[6]s
cniBinDirs: [%[4]s/.cache/cni]
runtimeBinDirs: [%[4]s/.cache/bin]
cniConfDir: %[1]s/cni
podCIDR: 10.199.0.0/16
%[5]s
`, m.dir, m.cgroupRoot, kubelet, m.repo, extra, m.images)
	if err := os.WriteFile(m.config, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// start runs the agent in the machine's network namespace and waits for its socket.
func (m *machine) start() {
	m.t.Helper()
	if m.log == nil {
		f, err := os.OpenFile(m.dir+"/agent.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			m.t.Fatal(err)
		}
		m.log = f
	}
	m.cmd = exec.Command("nsenter", "--net=/run/netns/"+m.netns, m.bin, "run", "--config", m.config)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the agent answers", func() error {
		_, err := m.try("get", "pods")
		return err
	})
}

// kill ends the agent with SIGKILL, as a crash would.
func (m *machine) kill() {
	m.t.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	_ = m.cmd.Wait() // reports the kill
	m.cmd = nil
}

// stop ends the agent as a service manager would, and checks that it says so.
func (m *machine) stop() {
	m.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	if err := m.cmd.Wait(); err != nil {
		m.t.Errorf("agent after SIGTERM: %v", err)
	}
	m.cmd = nil
}

// remove takes everything down and checks that nothing is left.
func (m *machine) remove() {
	if m.t.Failed() {
		m.dumpLog()
	}
	if m.cmd != nil {
		m.stop()
	}
	out, err := exec.Command("nsenter", "--net=/run/netns/"+m.netns, m.bin, "down", "--config", m.config).CombinedOutput()
	if err != nil {
		m.t.Errorf("nodeagent down: %v\n%s", err, out)
	}
	for _, left := range m.leftovers() {
		m.t.Errorf("left behind after down: %s", left)
	}
	m.must("ip", "netns", "del", m.netns)
	if m.cgroupRoot != "/" {
		for _, dir := range m.cgroupRoots() {
			if err := os.Remove(dir); err != nil {
				m.t.Errorf("remove the test's cgroup root: %v", err)
			}
		}
	}
	if err := os.RemoveAll(m.dir); err != nil {
		m.t.Errorf("remove the machine's directory: %v", err)
	}
}

// leftovers lists mounts, cgroups and processes of this machine.
func (m *machine) leftovers() []string {
	var left []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, m.dir+"/") {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, p := range procs {
		cmdline, err := os.ReadFile(p)
		if err == nil && bytes.Contains(cmdline, []byte(m.dir+"/")) {
			left = append(left, "process "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	for _, root := range m.cgroupRoots() {
		for _, level := range []string{"kubepods", "kubepods.slice"} {
			if dir := filepath.Join(root, level); exists(dir) {
				left = append(left, "cgroup "+dir)
			}
		}
	}
	return left
}

func (m *machine) dumpLog() {
	data, err := os.ReadFile(m.dir + "/agent.log")
	if err != nil {
		return
	}
	if len(data) > 20_000 {
		data = data[len(data)-20_000:]
	}
	m.t.Logf("agent log:\n%s", data)
}
