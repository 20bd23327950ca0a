package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nodeagent/nodeagent/internal/testimage"
	"github.com/nodeagent/nodeagent/pkg/network"
)

const (
	podImage   = "docker.io/bench/pod:1"
	pauseImage = "docker.io/bench/pause:1" // only the kubelet's pods have one
	nodeName   = "node"
)

// machine is what all subjects share: one containerd, with its CRI plugin, and
// one pod network.
type machine struct {
	o          options
	dir        string
	cgroup     string // the root below which pods have theirs
	tools      string
	containerd *process
	client     *containerd.Client
}

// newMachine starts a containerd that has only the images.
func newMachine(ctx context.Context, o options) (*machine, error) {
	repo, err := filepath.Abs(o.repo)
	if err != nil {
		return nil, err
	}
	m := &machine{o: o, cgroup: "/" + filepath.Base(o.dir), tools: filepath.Join(repo, ".cache")}
	if m.dir, err = os.MkdirTemp(o.dir, ""); err != nil {
		return nil, err
	}
	if err := network.EnsureBridge(ctx, m.dir+"/cni/10-bench.conflist", network.Bridge{
		PodCIDR: "10.198.0.0/16", BinDirs: []string{m.tools + "/cni"}, DataDir: m.dir + "/addresses",
	}); err != nil {
		return nil, err
	}
	if err := os.WriteFile(m.dir+"/containerd.toml", []byte(m.containerdConfig()), 0o644); err != nil {
		return nil, err
	}
	if m.containerd, err = startProcess(m.dir+"/containerd.log", m.tools+"/bin/containerd", "--config", m.dir+"/containerd.toml"); err != nil {
		return nil, err
	}
	err = until(ctx, 20*time.Millisecond, "containerd answers", func() (bool, error) {
		if m.client == nil {
			m.client, _ = containerd.New(m.socket(), containerd.WithTimeout(time.Second)) // tried again
		}
		if m.client == nil {
			return false, nil
		}
		return m.client.IsServing(ctx)
	})
	if err == nil {
		err = m.importImages(ctx)
	}
	return m, m.containerd.explain(err)
}

func (m *machine) socket() string { return m.dir + "/containerd.sock" }

// close ends containerd; the subjects have ended. Files and mounts go when the
// bench ends.
func (m *machine) close() error {
	return errors.Join(m.client.Close(), m.containerd.end(syscall.SIGTERM))
}

// containerdConfig is containerd's default with places of our own. NRI is off,
// since it would listen to the machine's plugins.
func (m *machine) containerdConfig() string {
	return strings.NewReplacer("DIR", m.dir, "TOOLS", m.tools, "PAUSE", pauseImage).Replace(`version = 4
imports = []
root = "DIR/ctd"
state = "DIR/ctd-state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins."io.containerd.server.v1.grpc"]
address = "DIR/containerd.sock"
[plugins."io.containerd.server.v1.ttrpc"]
address = "DIR/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "DIR/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "PAUSE"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["TOOLS/cni"]
conf_dir = "DIR/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "TOOLS/bin/runc"
`)
}

// importImages gives each subject's containerd namespace the pods' image, and
// unpacks it: every figure is of a machine that has run such a pod before.
func (m *machine) importImages(ctx context.Context) error {
	const busybox = "/bin/busybox"
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	for _, namespace := range []string{agentNamespace, floorNamespace, kubeletNamespace} {
		ctx := namespaces.WithNamespace(ctx, namespace)
		for _, name := range []string{podImage, pauseImage} {
			if name == pauseImage && namespace != kubeletNamespace {
				continue
			}
			image := testimage.Busybox(name, binary, []string{"sh", "sleep", "true"})
			image.Config = ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sleep", "infinity"}}
			if err := m.importImage(ctx, image); err != nil {
				return fmt.Errorf("import %s: %w", name, err)
			}
		}
	}
	return nil
}

func (m *machine) importImage(ctx context.Context, image testimage.Image) error {
	var archive bytes.Buffer
	if err := testimage.Write(&archive, image); err != nil {
		return err
	}
	images, err := m.client.Import(ctx, &archive)
	if err != nil {
		return err
	}
	for _, i := range images {
		if err := containerd.NewImage(m.client, i).Unpack(ctx, "overlayfs"); err != nil {
			return err
		}
	}
	return nil
}

// podCommand is what every container runs: one process which sleeps, and which
// ends when it is asked to, as well-behaved programs do. sleep would not: as the
// init of its PID namespace it does not hear a signal that it has no handler for.
func podCommand() []string {
	return []string{"sh", "-c", `trap "exit 0" TERM; read nothing </dev/ptmx`}
}

// version is what a program says of itself: a word of the first line it prints.
func version(ctx context.Context, field int, path, flag string) (string, error) {
	out, err := exec.CommandContext(ctx, path, flag).Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	words := strings.Fields(line)
	if len(words) <= field {
		return "", fmt.Errorf("%s %s prints %q", path, flag, line)
	}
	return words[field], nil
}
