package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// patience bounds every wait, so that a defect ends the run instead of hanging it.
const patience = 5 * time.Minute

// bed is what one measurement lies in: an agent with directories, a network
// namespace and a cgroup root of its own.
type bed struct {
	o     options
	repo  string
	dir   string
	netns string
	agent *exec.Cmd
	http  *http.Client
}

func newBed(o options) (*bed, error) {
	repo, err := filepath.Abs(o.repo)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nb")
	if err != nil {
		return nil, err
	}
	b := &bed{o: o, repo: repo, dir: dir, netns: filepath.Base(dir)}
	b.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.dir+"/run/agent.sock")
	}}}
	if err := os.Mkdir(dir+"/manifests", 0o755); err != nil {
		return nil, err
	}
	for _, c := range [][]string{
		{"ip", "netns", "add", b.netns},
		{"nsenter", "--net=/run/netns/" + b.netns, "ip", "link", "set", "lo", "up"},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	if err := b.makeCgroupRoot(); err != nil {
		return nil, err
	}
	return b, os.WriteFile(dir+"/config.yaml", []byte(b.config()), 0o644)
}

func (b *bed) config() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %[1]s/manifests
cgroupRoot: /%[2]s
maxPods: 1000
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
imageDir: %[3]s/.cache/images
cniBinDirs: [%[3]s/.cache/cni]
runtimeBinDirs: [%[3]s/.cache/bin]
cniConfDir: %[1]s/cni
podCIDR: 10.198.0.0/16
`, b.dir, b.netns, b.repo)
}

// cgroupRoots are the directories of the bed's cgroup, one for each v1
// controller or one on v2.
func (b *bed) cgroupRoots() ([]string, error) {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return []string{filepath.Join(root, b.netns)}, nil
	}
	mounts, err := filepath.Glob(root + "/*/cgroup.procs")
	var dirs []string
	for _, m := range mounts {
		dirs = append(dirs, filepath.Join(filepath.Dir(m), b.netns))
	}
	return dirs, err
}

func (b *bed) makeCgroupRoot() error {
	dirs, err := b.cgroupRoots()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 leaves them empty, and the cgroup unusable
			parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), parent, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bed) startAgent(ctx context.Context) error {
	log, err := os.OpenFile(b.dir+"/agent.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	b.agent = exec.Command("nsenter", "--net=/run/netns/"+b.netns, b.o.agent, "run", "--config", b.dir+"/config.yaml")
	b.agent.Stdout, b.agent.Stderr = log, log
	b.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.agent.Start(); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	return until(ctx, "the agent answers", func() (bool, error) {
		_, err := b.pods(ctx)
		return err == nil, nil
	})
}

func (b *bed) endAgent(sig os.Signal) error {
	if b.agent == nil {
		return nil
	}
	if err := b.agent.Process.Signal(sig); err != nil {
		return err
	}
	_ = b.agent.Wait() // reports the signal
	b.agent = nil
	return nil
}

// remove takes down everything of the bed.
func (b *bed) remove() error {
	errs := []error{b.endAgent(syscall.SIGTERM)}
	down := exec.Command("nsenter", "--net=/run/netns/"+b.netns, b.o.agent, "down", "--config", b.dir+"/config.yaml")
	if out, err := down.CombinedOutput(); err != nil {
		errs = append(errs, fmt.Errorf("nodeagent down: %w: %s", err, out))
	}
	errs = append(errs, exec.Command("ip", "netns", "del", b.netns).Run())
	dirs, err := b.cgroupRoots()
	errs = append(errs, err)
	for _, dir := range dirs {
		errs = append(errs, os.Remove(dir))
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// pods asks the agent for all pods.
func (b *bed) pods(ctx context.Context) ([]corev1.Pod, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/pods", nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var list corev1.PodList
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, err
	}
	return list.Items, nil
}

func (b *bed) manifest(name string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
  annotations: {nodeagent.dev/restart-initial-backoff: 0s}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: c
    image: demo/busybox:1
    command: [sleep, "1000000"]
    resources: {requests: {cpu: 1m, memory: 4Mi}}
`, name)
	tmp := filepath.Join(b.dir, name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(b.dir, "manifests", name+".yaml"))
}

// until waits for ok, which it asks often: the caller's clock is the measure.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
