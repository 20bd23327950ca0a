//go:build systemd

package dist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	releases  = "../../dist" // of the payload
	images    = "../../.cache/images"
	manifests = "/etc/kubernetes/manifests"
	dropIns   = "/etc/systemd/system/nodeagent.service.d"
	// patience bounds how long a state may take to come; it is no measure of speed.
	patience = 3 * time.Minute
)

// command returns what was printed, or fails the test with the complaint.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(name string, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.Command(name, args...) // not with the test's context: cleaning up uses it too
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// shell runs a script as root would type it.
func shell(t *testing.T, script string) string {
	t.Helper()
	return command(t, "bash", "-euo", "pipefail", "-c", script)
}

// artefact is the one file of a release that a pattern names.
func artefact(t *testing.T, version, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(releases, version, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s of %s: %v, %v", pattern, version, found, err)
	}
	return found[0]
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new") // whole at once
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// eventually polls: what it waits for is other processes' doing.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		began := time.Now()
		if err = f(); err == nil {
			return
		}
		// As long as the look took: an emulated machine has other things to do.
		time.Sleep(max(time.Since(began), 100*time.Millisecond))
	}
	t.Fatalf("%s: still not so after %s: %v", what, patience, err)
}

// running is what must not change of a container when its agent does.
type running struct {
	ID, PIDs string
	Restarts int32
}

// container waits until the pod of a manifest is ready and returns its container.
func container(t *testing.T, pod string) running {
	t.Helper()
	var out running
	eventually(t, pod+" is ready", func() error {
		text, err := try("nodeagent", "get", "pods", pod, "-o", "json")
		if err != nil {
			return err
		}
		var p corev1.Pod
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return err
		}
		if len(p.Status.ContainerStatuses) != 1 || !p.Status.ContainerStatuses[0].Ready {
			return fmt.Errorf("status is %+v", p.Status)
		}
		c := p.Status.ContainerStatuses[0]
		out.ID, out.Restarts = strings.TrimPrefix(c.ContainerID, "containerd://"), c.RestartCount
		return nil
	})
	scope := property(t, "cri-containerd-"+out.ID+".scope", "ControlGroup")
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd"} {
		if data, err := os.ReadFile(filepath.Join(root, scope, "cgroup.procs")); err == nil && out.PIDs == "" {
			out.PIDs = string(data)
		}
	}
	if out.PIDs == "" {
		t.Fatalf("no process in %s", scope)
	}
	return out
}

func property(t *testing.T, unit, name string) string {
	t.Helper()
	return command(t, "systemctl", "show", unit, "-p", name, "--value")
}

// showLog shows what the agent and containerd say, if the test has failed.
func showLog(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, look := range []string{
		"nodeagent describe pod web", "tail -n 50 /var/lib/nodeagent/containerd/containerd.log",
		"journalctl -u nodeagent --no-pager -n 150 -o cat",
	} {
		out, err := try("bash", "-c", look)
		t.Logf("%s:\n%s\n%v", look, out, err)
	}
}

// leftovers are what a user would find of the agent.
func leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{
		"/sys/fs/cgroup/kubepods*", "/sys/fs/cgroup/*/kubepods*", "/run/nodeagent", "/var/lib/nodeagent/*", "/etc/cni/net.d/10-nodeagent.conflist",
		"/var/log/pods", "/var/log/containers", "/usr/bin/nodeagent", "/usr/lib/nodeagent", "/usr/lib/systemd/system/nodeagent.service",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if target, err := os.Readlink(p); err == nil && (strings.Contains(target, "/lib/nodeagent/") || strings.Contains(target, "bin/nodeagent")) {
			left = append(left, p+" is "+target)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/nodeagent/") {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	if units := command(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "kubepods*", "cri-containerd-*", "nodeagent*"); units != "" {
		left = append(left, units)
	}
	return left
}
