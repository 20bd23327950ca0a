//go:build integration

package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/containernetworking/plugins/pkg/testutils"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// inside marks the copy of this test which runs in namespaces of its own.
const inside = "NODEAGENT_TEST_NETNS"

// TestMain moves the whole test into fresh network and mount namespaces: the
// plugins write packet filter rules and bridges, and none of them may be seen
// by the machine.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "FAIL: the network integration tests need root")
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type machine struct {
	*CNI
	cfg    Config
	bridge Bridge
	file   string
}

// newMachine writes a bridge network and returns a CNI on it.
func newMachine(t *testing.T, name, cidr string) *machine {
	t.Helper()
	root := t.TempDir()
	m := &machine{cfg: Config{
		ConfDir:  filepath.Join(root, "net.d"),
		BinDirs:  []string{pluginDir(t)},
		CacheDir: filepath.Join(root, "cache"),
		Log:      slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}}
	m.bridge = Bridge{Name: name, PodCIDR: cidr, BinDirs: m.cfg.BinDirs, DataDir: filepath.Join(root, "addresses")}
	m.file = filepath.Join(m.cfg.ConfDir, "10-test.conflist")
	if err := EnsureBridge(t.Context(), m.file, m.bridge); err != nil {
		t.Fatal(err)
	}
	m.CNI = New(m.cfg)
	if err := m.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := loopbackUp("/proc/thread-self/ns/net"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveBridge(context.Background(), m.bridge); err != nil {
			t.Errorf("remove bridge: %v", err)
		}
		if _, err := netlink.LinkByName(name); err == nil {
			t.Errorf("bridge %s is still there", name)
		}
		if rules := natRules(t); strings.Contains(rules, "-A ") || strings.Contains(rules, "-N ") {
			t.Errorf("packet filter rules are left:\n%s", rules)
		}
	})
	return m
}

func pluginDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("NODEAGENT_CNI_BIN_DIR")
	if dir == "" {
		dir = "../../.cache/cni"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "bridge")); err != nil {
		t.Fatalf("no CNI plugins (make tools): %v", err)
	}
	return dir
}

func natRules(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{
		{"iptables", "-w", "-t", "nat", "-S"}, {"iptables", "-w", "-S"}, {"nft", "list", "tables"},
	} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		all.Write(out)
	}
	return all.String()
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func newNS(t *testing.T) ns.NetNS {
	t.Helper()
	n, err := testutils.NewNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close() //nolint:errcheck // may be closed by the test
		if err := testutils.UnmountNS(n); err != nil && !os.IsNotExist(err) {
			t.Logf("unpin namespace: %v", err)
		}
	})
	return n
}

func pod(name string, ports ...corev1.ContainerPort) *corev1.Pod {
	p := basePod()
	p.Name, p.UID = name, types.UID("uid-"+name)
	p.Spec.Containers[0].Ports = ports
	return p
}

func (m *machine) attach(t *testing.T, id string, n ns.NetNS, p *corev1.Pod) string {
	t.Helper()
	start := time.Now()
	ips, result, err := m.Add(t.Context(), id, n.Path(), "", p)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ADD took %v", time.Since(start))
	if len(ips) != 1 || !strings.Contains(string(result), ips[0]) {
		t.Fatalf("addresses %v, result %s", ips, result)
	}
	return ips[0]
}

// leases returns who holds an address.
func (m *machine) leases(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(m.bridge.DataDir, bridgeNetwork, "[0-9]*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (m *machine) wantNothingLeft(t *testing.T) {
	t.Helper()
	if l := m.leases(t); len(l) != 0 {
		t.Errorf("addresses are still taken: %v", l)
	}
	cached, err := filepath.Glob(filepath.Join(m.cfg.CacheDir, "results", "*"))
	if err != nil || len(cached) != 0 {
		t.Errorf("results are still cached: %v, %v", cached, err)
	}
}

// serve answers every connection in the namespace until the test ends.
func serve(t *testing.T, n ns.NetNS, addr, answer string) {
	t.Helper()
	var l net.Listener
	err := n.Do(func(ns.NetNS) (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, answer)
			c.Close() //nolint:errcheck // the client has what it came for
		}
	}()
}

func ask(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestPodLife(t *testing.T) {
	m := newMachine(t, "natest0", "10.201.0.0/24")
	a, b := newNS(t), newNS(t)
	ipA := m.attach(t, "box-a", a, pod("a"))
	ipB := m.attach(t, "box-b", b, pod("b"))
	if ipA == ipB {
		t.Fatalf("two pods, one address: %s", ipA)
	}

	serve(t, a, ipA+":8080", "a")
	serve(t, a, "127.0.0.1:8081", "a-lo")
	for addr, in := range map[string]ns.NetNS{ipA + ":8080": b, "127.0.0.1:8081": a} {
		if err := in.Do(func(ns.NetNS) error {
			_, err := ask(addr)
			return err
		}); err != nil {
			t.Errorf("a pod reaches others, and itself over lo, which must be up: %v", err)
		}
	}
	if err := m.Check(t.Context(), "box-a", a.Path()); err != nil {
		t.Errorf("Check of a sound pod: %v", err)
	}
	if err := a.Do(func(ns.NetNS) error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	}); err != nil {
		t.Fatal(err)
	}
	if err := m.Del(t.Context(), "box-a", a.Path(), pod("a")); err != nil {
		t.Fatal(err)
	}
	if err := m.Check(t.Context(), "box-a", a.Path()); err == nil {
		t.Error("Check must not find a detached pod sound")
	}
	for range 2 {
		if err := m.Del(t.Context(), "box-a", a.Path(), pod("a")); err != nil {
			t.Errorf("Del again: %v", err)
		}
	}
	if got := m.leases(t); len(got) != 1 || filepath.Base(got[0]) != ipB {
		t.Errorf("only b has an address now: %v", got)
	}
	start := time.Now()
	if err := m.Del(t.Context(), "box-b", b.Path(), pod("b")); err != nil {
		t.Fatal(err)
	}
	t.Logf("DEL took %v", time.Since(start))
	m.wantNothingLeft(t)
}

func TestDelWithoutNamespace(t *testing.T) {
	m := newMachine(t, "natest1", "10.202.0.0/24")
	n := newNS(t)
	m.attach(t, "box", n, pod("gone", corev1.ContainerPort{ContainerPort: 80, HostPort: 18081}))
	path := n.Path()
	n.Close() //nolint:errcheck // unmounted next
	if err := testutils.UnmountNS(n); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, "", path + "-never-was"} {
		if err := m.Del(t.Context(), "box", p, pod("gone")); err != nil {
			t.Errorf("Del with namespace %q: %v", p, err)
		}
	}
	m.wantNothingLeft(t)
}

func TestDelUsesTheConfigurationOfAdd(t *testing.T) {
	m := newMachine(t, "natest2", "10.203.0.0/24")
	n := newNS(t)
	m.attach(t, "box", n, pod("old"))
	if err := os.Remove(m.file); err != nil {
		t.Fatal(err)
	}
	again := New(m.cfg) // an agent that starts after the file has gone
	if again.Ready() == nil {
		t.Fatal("ready without a configuration")
	}
	if err := again.Del(t.Context(), "box", n.Path(), pod("old")); err != nil {
		t.Error(err)
	}
	m.wantNothingLeft(t)
}

func TestFailedAddLeavesNothing(t *testing.T) {
	m := newMachine(t, "natest3", "10.204.0.0/24")
	bad := t.TempDir()
	put(t, filepath.Join(bad, "refuse"), `#!/bin/sh
[ "$CNI_COMMAND" = DEL ] && exit 0
echo '{"cniVersion":"1.0.0","code":11,"msg":"not yet"}'; exit 1
`)
	m.cfg.BinDirs = append(m.cfg.BinDirs, bad)
	data, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	put(t, m.file, strings.TrimSuffix(strings.TrimSpace(string(data)), "]\n}")+`, {"type":"refuse"}]}`)
	c := New(m.cfg)
	if err := c.Ready(); err != nil {
		t.Fatal(err)
	}
	n := newNS(t)
	_, _, err = c.Add(t.Context(), "box", n.Path(), "", pod("a"))
	var refused *PluginError
	if !errors.As(err, &refused) || refused.Verb != "ADD" || !refused.Temporary() {
		t.Errorf("a plugin's \"try again\" must be recognisable: %v", err)
	}
	m.wantNothingLeft(t)
	if err := c.Del(t.Context(), "box", n.Path(), pod("a")); err != nil {
		t.Errorf("Del after a failed Add: %v", err)
	}
}

func TestHostPort(t *testing.T) {
	m := newMachine(t, "natest4", "10.205.0.0/24")
	n := newNS(t)
	p := pod("web", corev1.ContainerPort{ContainerPort: 80, HostPort: 18080})
	ip := m.attach(t, "box", n, p)
	serve(t, n, ip+":80", "web")
	gateway := strings.TrimSuffix(ip, ip[strings.LastIndex(ip, "."):]) + ".1"
	for _, addr := range []string{gateway + ":18080", "127.0.0.1:18080"} {
		if got, err := ask(addr); err != nil || got != "web" {
			t.Errorf("host port at %s: %q, %v", addr, got, err)
		}
	}
	if err := m.Del(t.Context(), "box", n.Path(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("127.0.0.1:18080"); err == nil {
		t.Error("the host port outlived its pod")
	}
	m.wantNothingLeft(t)
}

func TestBandwidth(t *testing.T) {
	m := newMachine(t, "natest5", "10.206.0.0/24")
	n := newNS(t)
	p := pod("slow")
	p.Annotations = map[string]string{ingressAnnotation: "8M"}
	m.attach(t, "box", n, p)
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var rates []uint64
	for _, l := range links {
		qdiscs, err := netlink.QdiscList(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range qdiscs {
			if tbf, ok := q.(*netlink.Tbf); ok {
				rates = append(rates, tbf.Rate)
			}
		}
	}
	if len(rates) != 1 || rates[0] != 1e6 {
		t.Errorf("8 Mbit/s is 1e6 bytes/s on the host's side of the pair: got %v", rates)
	}
	if err := m.Del(t.Context(), "box", n.Path(), p); err != nil {
		t.Fatal(err)
	}
	m.wantNothingLeft(t)
}
