package testnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testimage"
	"github.com/nodeagent/nodeagent/pkg/network"
)

// pauseImage keeps the namespaces of a kubelet's pods.
const pauseImage = "docker.io/demo/pause:1"

// kubeletFiles writes what a kubelet and its containerd read.
func (n *Node) kubeletFiles() error {
	replace := strings.NewReplacer("DIR", n.Dir, "TOOLS", filepath.Join(n.Repo, ".cache"), "PAUSE", pauseImage, "CGROUP", n.cgroup, "CLIENTCA", n.ClientCA)
	return errors.Join(
		os.WriteFile(n.file("containerd.toml"), []byte(replace.Replace(containerdConfig)), 0o644),
		os.WriteFile(n.file("kubelet.yaml"), []byte(replace.Replace(kubeletConfig)+n.Kubelet), 0o644),
	)
}

const containerdConfig = `version = 4
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
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: DIR/manifests
cgroupRoot: CGROUP
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
podLogsDir: DIR/log
volumePluginDir: DIR/plugins
containerRuntimeEndpoint: unix://DIR/containerd.sock
resolvConf: ""
authentication: {x509: {clientCAFile: CLIENTCA}}
evictionHard: {memory.available: "1Mi", nodefs.available: "1Mi", imagefs.available: "1Mi"}
imageGCHighThresholdPercent: 100
`

func (n *Node) startKubelet() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tools := filepath.Join(n.Repo, ".cache")
	if err := network.EnsureBridge(ctx, n.file("cni/10-test.conflist"), network.Bridge{
		PodCIDR: podCIDR, BinDirs: []string{tools + "/cni"}, DataDir: n.file("addresses"),
	}); err != nil {
		return err
	}
	if err := n.procs.Spawn("containerd", tools+"/bin/containerd", "--config", n.file("containerd.toml")); err != nil {
		return err
	}
	if err := n.importImages(ctx); err != nil {
		return errors.Join(err, n.procs.Died("containerd"))
	}
	return n.procs.Spawn(n.program(), tools+"/peers/kubelet", "--config="+n.file("kubelet.yaml"), "--root-dir="+n.file("root"),
		"--cert-dir="+n.file("certificates"), "--hostname-override="+n.Name, "--node-ip="+n.IP, "--kubeconfig="+n.Kubeconfig, "--v=2")
}

// importImages gives the kubelet's containerd what the agent takes from the image
// directory, and the pause image.
func (n *Node) importImages(ctx context.Context) error {
	c, err := containerd.New(n.file("containerd.sock"), containerd.WithTimeout(time.Minute))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	pause := testimage.Busybox(pauseImage, busybox, []string{"sleep"})
	pause.Config = ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sleep", "2147483647"}}
	var archive bytes.Buffer
	if err := testimage.Write(&archive, pause); err != nil {
		return err
	}
	archives := [][]byte{archive.Bytes()}
	files, err := filepath.Glob(filepath.Join(n.Repo, ".cache/images/*.tar"))
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		archives = append(archives, data)
	}
	for _, data := range archives {
		images, err := c.Import(ctx, bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("import images: %w", err)
		}
		for _, i := range images {
			i.Name = whole(i.Name) // CRI knows images by no other
			if _, err := c.ImageService().Create(ctx, i); err != nil && !errdefs.IsAlreadyExists(err) {
				return fmt.Errorf("name image %s: %w", i.Name, err)
			}
		}
	}
	return nil
}

// whole gives a short reference its registry.
func whole(name string) string {
	if strings.HasPrefix(name, "docker.io/") {
		return name
	}
	return "docker.io/" + name
}

// removeKubelet ends what a kubelet leaves running, and its mounts and cgroups.
func (n *Node) removeKubelet() error {
	if err := n.endContainers(); err != nil {
		return err
	}
	if err := n.procs.End("containerd", 20*time.Second); err != nil {
		return err
	}
	mounts, err := n.mounts()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	return n.eachCgroup(os.Remove)
}

// endContainers kills all in the node's cgroups, and the shims.
func (n *Node) endContainers() error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		alive := 0
		end := func(pid int) {
			alive++
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		if err := n.eachCgroup(func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(data)) {
				pid, err := strconv.Atoi(strings.TrimSpace(line))
				if err != nil {
					return err
				}
				end(pid)
			}
			return nil
		}); err != nil {
			return err
		}
		for pid := range n.processes("-address\x00" + n.file("containerd.sock")) {
			end(pid)
		}
		if alive == 0 || time.Now().After(deadline) {
			return nil // what is left is reported
		}
	}
}

// eachCgroup calls do for every cgroup below the node's root, deepest first.
func (n *Node) eachCgroup(do func(dir string) error) error {
	roots, err := n.cgroupDirs()
	if err != nil {
		return err
	}
	var dirs []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			if err == nil && d.IsDir() && path != root {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, dir := range slices.Backward(dirs) {
		if err := do(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}
