//go:build systemd

package dist

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

const pod = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: demo/busybox:1, command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]}
`

// TestPackage is the life of a Debian package. What it proves follows in order.
func TestPackage(t *testing.T) {
	t.Cleanup(func() {
		showLog(t)
		// For other tests in this machine, however far this one got.
		_, _ = try("dpkg", "--purge", "nodeagent")
		if err := errors.Join(os.RemoveAll(manifests), os.RemoveAll(dropIns)); err != nil {
			t.Error(err)
		}
		_, _ = try("systemctl", "daemon-reload")
	})
	// So that the watchdog needs no minute, also where a second is long.
	write(t, dropIns+"/watchdog.conf", "[Service]\nWatchdogSec=20\n")
	shell(t, "mkdir -p /var/lib/nodeagent/images; cp "+images+"/*.tar /var/lib/nodeagent/images/")

	command(t, "dpkg", "--install", artefact(t, "v1.0.0", "*.deb"))
	if got := command(t, "systemctl", "is-enabled", "nodeagent") + " " + command(t, "systemctl", "is-active", "nodeagent"); got != "enabled active" {
		t.Errorf("an installed service is %s", got)
	}
	agentVersion(t, "v1.0.0")
	write(t, manifests+"/web.yaml", pod)
	before := container(t, "web")

	for _, proof := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Upgrade", upgrade},
		{"Watchdog", watchdog},
		{"DisabledStaysDisabled", disabled},
	} {
		t.Run(proof.name, proof.run)
		if after := container(t, "web"); after != before {
			t.Fatalf("%s touched the container: %+v, before %+v", proof.name, after, before)
		}
	}
	t.Run("Remove", remove)
}

// agentVersion checks that the agent that runs is of a version.
func agentVersion(t *testing.T, want string) {
	t.Helper()
	if got := command(t, "nodeagent", "version"); !strings.Contains(got, "Client: "+want+" ") || !strings.Contains(got, "Agent:  "+want+"\n") {
		t.Errorf("%s is installed, and this is what runs:\n%s", want, got)
	}
}

// upgrade installs a newer package under an agent whose configuration its
// administrator has changed.
func upgrade(t *testing.T) {
	config := shell(t, "echo '# mine' >>/etc/nodeagent/config.yaml; cat /etc/nodeagent/config.yaml")
	containerd := shell(t, "cat /var/lib/nodeagent/containerd/state/containerd.pid")
	command(t, "dpkg", "--install", artefact(t, "v1.0.1", "*.deb"))
	agentVersion(t, "v1.0.1")
	if got := shell(t, "cat /etc/nodeagent/config.yaml"); got != config {
		t.Errorf("the configuration was replaced:\n%s", got)
	}
	replaced := containerd != shell(t, "cat /var/lib/nodeagent/containerd/state/containerd.pid")
	if unified := exists("/sys/fs/cgroup/cgroup.controllers"); replaced != unified { // see pkg/cri for why not on v1
		t.Errorf("containerd was replaced: %v, want %v", replaced, unified)
	}
	if got := command(t, "nodeagent", "exec", "web", "--", "echo", "hello"); got != "hello" {
		t.Errorf("exec in a pod of the agent before says %q", got)
	}
}

// watchdog stops the agent in its tracks.
func watchdog(t *testing.T) {
	pid, restarts := property(t, "nodeagent", "MainPID"), property(t, "nodeagent", "NRestarts")
	command(t, "kill", "-STOP", pid)
	eventually(t, "systemd has started another agent", func() error {
		now, again := property(t, "nodeagent", "MainPID"), property(t, "nodeagent", "NRestarts")
		if now == pid || now == "0" || again == restarts {
			return fmt.Errorf("process %s, restarts %s; before %s and %s", now, again, pid, restarts)
		}
		return nil
	})
	if log := command(t, "journalctl", "-u", "nodeagent", "--no-pager", "-o", "cat"); !strings.Contains(strings.ToLower(log), "watchdog timeout") {
		t.Error("it was not the watchdog that ended the agent")
	}
	eventually(t, "the agent answers", func() error {
		_, err := try("nodeagent", "get", "pods")
		return err
	})
}

// disabled is a service that its administrator does not want at boot: a package
// that is configured again does not know better.
func disabled(t *testing.T) {
	command(t, "systemctl", "disable", "nodeagent")
	command(t, "env", "DPKG_MAINTSCRIPT_PACKAGE=nodeagent", "/var/lib/dpkg/info/nodeagent.postinst", "configure", "1.0.1")
	if got, _ := try("systemctl", "is-enabled", "nodeagent"); got == "enabled" {
		t.Error("a disabled service was enabled")
	}
}

// remove leaves what the administrator has written, and purge not even that.
func remove(t *testing.T) {
	command(t, "dpkg", "--remove", "nodeagent")
	left := leftovers(t)
	if len(left) == 1 && left[0] == "/var/lib/nodeagent/images" { // the administrator's
		left = nil
	}
	if len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	for _, path := range []string{"/etc/nodeagent/config.yaml", "/etc/default/nodeagent", manifests + "/web.yaml"} {
		if !exists(path) {
			t.Errorf("%s went with the package", path)
		}
	}
	command(t, "dpkg", "--purge", "nodeagent")
	for _, path := range []string{"/etc/nodeagent", "/etc/default/nodeagent", "/var/lib/nodeagent"} {
		if exists(path) {
			t.Errorf("%s is still there after a purge", path)
		}
	}
	if !exists(manifests + "/web.yaml") {
		t.Error("a purge took the manifests")
	}
}
