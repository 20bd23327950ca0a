//go:build systemd

package dist

import (
	"strings"
	"testing"
)

// TestArchive installs from the archive on a machine whose containerd is a service
// of its own, and narrows the agent as far as that allows.
func TestArchive(t *testing.T) {
	t.Cleanup(func() {
		showLog(t)
		for _, c := range []string{
			"systemctl stop nodeagent", "nodeagent down --config=/etc/nodeagent/config.yaml", "systemctl stop containerd",
			"rm -rf /usr/local/lib/nodeagent /usr/local/lib/systemd /usr/local/share/doc/nodeagent /usr/local/bin/nodeagent",
			"rm -rf /etc/nodeagent " + manifests + " " + dropIns + " /etc/cni /var/lib/nodeagent /var/lib/containerd /run/containerd",
			"systemctl daemon-reload",
		} {
			if _, err := try("bash", "-c", c); err != nil {
				t.Error(err)
			}
		}
	})
	shell(t, "tar -C /usr/local --strip-components=1 -xzf "+artefact(t, "v1.0.0", "*.tar.gz"))
	shell(t, "systemd-run --quiet --unit=containerd -p Type=notify -p KillMode=process -p Delegate=yes "+
		"-p Environment=PATH=/usr/local/lib/nodeagent/bin:/usr/sbin:/usr/bin /usr/local/lib/nodeagent/bin/containerd")
	write(t, "/etc/nodeagent/config.yaml", `apiVersion: nodeagent.dev/v1alpha1
kind: NodeAgentConfiguration
runtime: external
`)
	write(t, "/etc/cni/net.d/10-test.conflist", `{"cniVersion": "1.0.0", "name": "test", "plugins": [
		{"type": "bridge", "bridge": "test0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local", "subnet": "10.89.0.0/24"}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}`)
	shell(t, "mkdir -p "+dropIns+" /var/lib/nodeagent/images "+manifests+
		"; cp /usr/local/share/doc/nodeagent/examples/hardened.conf "+dropIns+"/; cp "+images+"/*.tar /var/lib/nodeagent/images/")
	command(t, "systemctl", "daemon-reload")
	command(t, "systemctl", "enable", "--now", "nodeagent")
	// The agent mounts a volume, its plugins give an address and forward a port.
	write(t, manifests+"/web.yaml", strings.NewReplacer(
		"  containers:", "  volumes: [{name: m, emptyDir: {medium: Memory}}]\n  containers:",
		"wait\"]}", "wait\"], volumeMounts: [{name: m, mountPath: /m}], ports: [{containerPort: 80, hostPort: 8080}]}",
	).Replace(pod))
	before := container(t, "web")
	if got := command(t, "nodeagent", "exec", "web", "--", "sh", "-c", "grep -c ' /m tmpfs ' /proc/mounts; grep -c eth0 /proc/net/dev; grep NoNewPrivs /proc/1/status"); got != "1\n1\nNoNewPrivs:\t0" {
		t.Errorf("in the container: %q", got)
	}
	if got := shell(t, "grep NoNewPrivs /proc/$(systemctl show nodeagent -p MainPID --value)/status"); got != "NoNewPrivs:\t1" {
		t.Errorf("the agent is not narrowed: %s", got)
	}
	command(t, "systemctl", "restart", "nodeagent")
	if after := container(t, "web"); after != before {
		t.Errorf("a restart touched the container: %+v, before %+v", after, before)
	}
}
