package testnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/internal/daemon"
)

// Options are what a node is made from.
type Options struct {
	Dir        string // everything of the node's; short, for the sockets below it
	Repo       string // where bin/ and .cache/ are
	Images     string // archives to import; empty is .cache/images
	Name       string // of the node
	IP         string // where the API server reaches it; an address of this network namespace
	Kubeconfig string // how it reaches the API server; empty is a standalone agent
	ClientCA   string // who may use its API
	// Kubelet and Agent are added to the two documents of the agent's configuration.
	Kubelet, Agent string
	// RealKubelet runs a kubelet instead.
	RealKubelet bool
}

// Node is a machine with an agent, or a kubelet.
type Node struct {
	Options
	cgroup string // the root below which pods have theirs
	procs  daemon.Set
}

// program is the name of the agent's process file, or the kubelet's.
func (n *Node) program() string {
	if n.RealKubelet {
		return "kubelet"
	}
	return "agent"
}

// New lays the machine out; nothing runs yet. It may be there already.
func New(o Options) (*Node, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a test node needs root")
	}
	n := &Node{Options: o, cgroup: "/", procs: daemon.Set{Dir: o.Dir}}
	for _, dir := range []string{n.Dir, n.Manifests()} {
		if err := os.MkdirAll(dir, 0o711); err != nil { // as the agent's own: user namespaces pass through
			return nil, err
		}
	}
	// A machine with systemd is a test machine as a whole.
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		n.cgroup = "/" + filepath.Base(n.Dir)
		if err := n.makeCgroupRoot(); err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", n.cgroup, err)
		}
	}
	if n.RealKubelet {
		return n, n.kubeletFiles()
	}
	return n, os.WriteFile(n.file("config.yaml"), []byte(n.config()), 0o644)
}

func (n *Node) file(name string) string { return filepath.Join(n.Dir, name) }

// Manifests is the directory of static pods.
func (n *Node) Manifests() string { return n.file("manifests") }

// Start runs the agent. It returns at once: the API server knows when it is ready.
func (n *Node) Start() error {
	if n.RealKubelet {
		return n.startKubelet()
	}
	return n.procs.Spawn(n.program(), n.binary(), "run", "--config", n.file("config.yaml"))
}

func (n *Node) binary() string { return filepath.Join(n.Repo, "bin/nodeagent") }

// Died says what the agent wrote last if it has ended, and is nil while it runs.
func (n *Node) Died() error { return n.procs.Died(n.program()) }

// Log is the end of what the agent wrote.
func (n *Node) Log() string { return n.procs.Tail(n.program(), 20_000) }

// Kill ends the agent as a crash would.
func (n *Node) Kill() error {
	if err := n.procs.Signal(n.program(), syscall.SIGKILL); err != nil {
		return err
	}
	return n.procs.End(n.program(), 10*time.Second)
}

// Stop ends the agent as a service manager would; its pods go on.
func (n *Node) Stop() error { return n.procs.End(n.program(), time.Minute) }

// Client runs a command of the local client and returns what it printed.
func (n *Node) Client(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, n.binary(), append([]string{"--socket", n.file("run/agent.sock")}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nodeagent %v: %w: %s", args, err, out)
	}
	return string(out), err
}

// Remove stops the agent and takes everything down, the directory too. It reports
// what is left behind.
func (n *Node) Remove(ctx context.Context) error {
	errs := []error{n.Stop()}
	if n.RealKubelet {
		errs = append(errs, n.removeKubelet())
	} else if out, err := exec.CommandContext(ctx, n.binary(), "down", "--config", n.file("config.yaml")).CombinedOutput(); err != nil {
		errs = append(errs, fmt.Errorf("nodeagent down: %w: %s", err, out))
	}
	left, err := n.leftovers()
	errs = append(errs, err)
	for _, what := range left {
		errs = append(errs, fmt.Errorf("left behind after down: %s", what))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the directory may help to find out why
	}
	return errors.Join(n.removeCgroupRoot(), os.RemoveAll(n.Dir))
}

// config is what the agent is told.
func (n *Node) config() string {
	auth := ""
	if n.Kubeconfig != "" {
		auth = fmt.Sprintf("authentication: {x509: {clientCAFile: %s}}\n", n.ClientCA)
	}
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %[2]s
cgroupRoot: %[3]s
%[4]s%[5]s
---
apiVersion: nodeagent.dev/v1alpha1
kind: NodeAgentConfiguration
nodeName: %[6]s
nodeIPs: [%[7]s]
kubeconfig: "%[8]s"
runtime: embedded
runtimeDir: %[1]s/ctd
rootDir: %[1]s/root
stateDir: %[1]s/run
logDir: %[1]s/log/pods
containerLogDir: %[1]s/log/containers
imageDir: %[12]s
cniBinDirs: [%[9]s/.cache/cni]
runtimeBinDirs: [%[9]s/.cache/bin]
cniConfDir: %[1]s/cni
podCIDR: %[10]s
%[11]s
`, n.Dir, n.Manifests(), n.cgroup, auth, n.Kubelet, n.Name, n.IP, n.Kubeconfig, n.Repo, podCIDR, n.Agent, cmp.Or(n.Images, filepath.Join(n.Repo, ".cache/images")))
}

// podCIDR is the range of the pods' network.
const podCIDR = "10.199.0.0/16"
