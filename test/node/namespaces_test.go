//go:build integration

package node

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestSharedProcessNamespace(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("shared.yaml", strings.Replace(sleeper("shared", "a", "b"), "spec:\n", "spec:\n  shareProcessNamespace: true\n", 1))
	m.start()
	pod := m.await("shared", "ready", ready)
	if a, b := m.run("exec", "shared", "-c", "a", "--", "readlink", "/proc/self/ns/pid"), m.run("exec", "shared", "-c", "b", "--", "readlink", "/proc/self/ns/pid"); a != b {
		t.Errorf("the containers live in %s and %s", a, b)
	}
	if got := m.run("exec", "shared", "-c", "a", "--", "cat", "/proc/1/cmdline"); strings.Trim(got, "\x00") != "/pause" {
		t.Errorf("init is %q", got)
	}
	// An orphan that ends leaves no zombie: nobody would ever reap it.
	m.run("exec", "shared", "-c", "a", "--", "sh", "-c", "(sleep 0.1 &)")
	m.eventually("the orphan is reaped", func() error {
		return notIn(m.run("exec", "shared", "-c", "b", "--", "ps", "-o", "stat,comm"), "Z")
	})
	m.kill()
	m.start()
	if after := m.await("shared", "ready", ready); containerIDs(after)["a"] != containerIDs(pod)["a"] {
		t.Error("the agent's restart replaced a container")
	}
	m.removeManifest("shared.yaml")
	m.awaitGone("shared")
}

func TestHostNamespaces(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("host.yaml", strings.Replace(sleeper("host", "c"), "spec:\n", "spec:\n  hostNetwork: true\n  hostPID: true\n  hostIPC: true\n", 1))
	m.start()
	m.await("host", "ready", ready)
	got := m.run("inspect", "host")
	for _, ns := range []string{"ipc", "uts", "pid"} {
		if !strings.Contains(got, ns+" ") || !lineHas(got, ns, "host") {
			t.Errorf("%s is not the host's:\n%s", ns, got)
		}
	}
}

func TestSecurityContext(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("tight.yaml", sleeper("tight", "c")+`    securityContext:
      runAsUser: 65534
      runAsGroup: 65534
      runAsNonRoot: true
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}
  securityContext: {fsGroup: 2000, supplementalGroups: [3000], sysctls: [{name: net.ipv4.ip_local_port_range, value: 20000 30000}]}
`)
	m.manifest("open.yaml", sleeper("open", "c")+"    securityContext: {privileged: true}\n")
	m.manifest("rootless.yaml", sleeper("rootless", "c")+"    securityContext: {runAsNonRoot: true}\n")
	m.start()
	user := m.await("tight", "ready", ready).Status.ContainerStatuses[0].User
	wantUser := &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 65534, GID: 65534, SupplementalGroups: []int64{2000, 3000, 65534}}}
	if d := cmp.Diff(wantUser, user); d != "" {
		t.Errorf("the status says who the process is (-want +got):\n%s", d)
	}
	m.await("open", "ready", ready)
	status := m.run("exec", "tight", "--", "cat", "/proc/self/status")
	for _, want := range []string{"Uid:\t65534", "Gid:\t65534", "Groups:\t2000 3000 65534", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapInh:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in:\n%s", want, status)
		}
	}
	if _, err := m.try("exec", "tight", "--", "touch", "/x"); err == nil {
		t.Error("the root file system can be written")
	}
	if got := strings.Fields(m.run("exec", "tight", "--", "cat", "/proc/sys/net/ipv4/ip_local_port_range")); len(got) != 2 || got[0] != "20000" || got[1] != "30000" {
		t.Errorf("sysctl is %v", got)
	}
	if got := m.run("exec", "open", "--", "cat", "/proc/self/status"); strings.Contains(got, "CapEff:\t0000000000000000") || !strings.Contains(got, "Seccomp:\t0") {
		t.Errorf("privileged:\n%s", got)
	}
	m.eventually("a root image is refused under runAsNonRoot", func() error {
		p, err := m.pod("rootless")
		if err != nil {
			return err
		}
		return in(waitingReasons(p), "CreateContainerConfigError")
	})
}

func TestUserNamespaces(t *testing.T) {
	m := newMachine(t, "", "")
	for _, name := range []string{"one", "two"} {
		m.manifest(name+".yaml", strings.Replace(sleeper(name, "c"), "spec:\n", "spec:\n  hostUsers: false\n  volumes: [{name: data, emptyDir: {}}]\n", 1)+
			"    volumeMounts: [{name: data, mountPath: /data}]\n    securityContext: {capabilities: {add: [NET_ADMIN]}}\n")
	}
	m.start()
	pod := m.await("one", "ready", ready)
	m.await("two", "ready", ready)
	maps := map[string]bool{}
	for _, name := range []string{"one", "two"} {
		f := strings.Fields(m.run("exec", name, "--", "cat", "/proc/self/uid_map"))
		if len(f) != 3 || f[0] != "0" || f[1] == "0" || f[2] != "65536" {
			t.Errorf("uid_map of %s is %v", name, f)
		}
		maps[f[1]] = true
	}
	if len(maps) != 2 {
		t.Errorf("the pods share IDs: %v", maps)
	}
	m.run("exec", "one", "--", "sh", "-c", "id -u > /data/who; echo loud >&2; echo x > /dev/stderr")
	if got := m.run("exec", "one", "--", "cat", "/data/who"); got != "0\n" {
		t.Errorf("inside, the user is %q", got)
	}
	info, err := os.Stat(m.dir + "/root/pods/" + string(pod.UID) + "/volumes/kubernetes.io~empty-dir/data/who")
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("the file on the volume belongs to %d, want the volume's owner: mounts are mapped", uid)
	}
	m.run("exec", "one", "--", "ip", "link", "set", "lo", "mtu", "1400") // root of its own network
}
