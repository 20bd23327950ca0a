package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The containerd namespaces in which the subjects keep their pods.
const (
	agentNamespace   = "nodeagent"
	kubeletNamespace = "k8s.io"
	floorNamespace   = "floor"
)

// subject is a program that runs the pods of a directory.
type subject struct {
	name      string
	namespace string // of containerd
	dir       string
	command   []string
	podsURL   string
	http      *http.Client
	proc      *process
	written   int // manifests, each with a number of its own
}

func newSubject(m *machine, name, namespace, config string, command []string) (*subject, error) {
	s := &subject{name: name, namespace: namespace, dir: filepath.Join(m.dir, name), http: &http.Client{}}
	r := strings.NewReplacer("DIR", s.dir, "MACHINE", m.dir, "TOOLS", m.tools, "CGROUP", m.cgroup, "NODE", nodeName)
	for _, c := range command {
		s.command = append(s.command, r.Replace(c))
	}
	if err := os.MkdirAll(s.dir+"/manifests", 0o755); err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.dir+"/config.yaml", []byte(r.Replace(config)), 0o644)
}

func newAgent(m *machine, flags ...string) (*subject, error) {
	s, err := newSubject(m, "nodeagent", agentNamespace, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: DIR/manifests
cgroupRoot: CGROUP
cgroupDriver: cgroupfs
maxPods: 1000
---
apiVersion: nodeagent.dev/v1alpha1
kind: NodeAgentConfiguration
nodeName: NODE
runtime: external
containerdAddress: MACHINE/containerd.sock
rootDir: DIR/root
stateDir: DIR/run
logDir: DIR/log/pods
containerLogDir: DIR/log/containers
imageDir: DIR/images
cniBinDirs: [TOOLS/cni]
runtimeBinDirs: [TOOLS/bin]
cniConfDir: MACHINE/cni
`, append([]string{m.o.agent, "run", "--config", "DIR/config.yaml"}, flags...))
	if err != nil {
		return nil, err
	}
	s.podsURL = "http://agent/pods"
	s.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.dir+"/run/agent.sock")
	}}
	return s, nil
}

// newKubelet is a kubelet without an API server, and without the thresholds and
// checks that a machine for anything may fail.
func newKubelet(m *machine) (*subject, error) {
	s, err := newSubject(m, "kubelet", kubeletNamespace, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: DIR/manifests
cgroupRoot: CGROUP
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
maxPods: 1000
podLogsDir: DIR/log
volumePluginDir: DIR/plugins
containerRuntimeEndpoint: unix://MACHINE/containerd.sock
resolvConf: ""
registerNode: false
address: 127.0.0.1
readOnlyPort: 10255
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: "1Mi", nodefs.available: "1Mi", imagefs.available: "1Mi"}
imageGCHighThresholdPercent: 100
`, []string{m.o.kubelet, "--config=DIR/config.yaml", "--root-dir=DIR/root", "--hostname-override=NODE", "--v=0"})
	if err != nil {
		return nil, err
	}
	s.podsURL = "http://127.0.0.1:10255/pods"
	return s, nil
}

// start starts the program and waits until it says what pods it has.
func (s *subject) start(ctx context.Context) error {
	var err error
	if s.proc, err = startProcess(s.dir+"/log.txt", s.command...); err != nil {
		return err
	}
	return s.proc.explain(until(ctx, 5*time.Millisecond, s.name+" answers", func() (bool, error) {
		_, err := s.pods(ctx)
		return err == nil, nil
	}))
}

// pods is what the program says.
func (s *subject) pods(ctx context.Context) ([]corev1.Pod, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.podsURL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", s.podsURL, resp.Status)
	}
	var list corev1.PodList
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, err
	}
	return list.Items, nil
}

// running waits until n pods, and no others, are told to be running.
func (s *subject) running(ctx context.Context, n int) error {
	return s.proc.explain(until(ctx, 20*time.Millisecond, fmt.Sprintf("%s says that %d pods run", s.name, n), func() (bool, error) {
		pods, err := s.pods(ctx)
		up := 0
		for _, p := range pods {
			if p.Status.Phase == corev1.PodRunning {
				up++
			}
		}
		return up == n && len(pods) == n, err
	}))
}

// executable is the end of the path of the program.
func (s *subject) executable() string { return "/" + filepath.Base(s.command[0]) }

// end ends the program and, at once, what it has left to wait for its successor.
func (s *subject) end() error {
	helpers, err := s.helpers()
	if err != nil {
		return err
	}
	errs := []error{s.proc.end(syscall.SIGTERM)}
	for _, pid := range helpers {
		errs = append(errs, syscall.Kill(pid, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

func podName(i int) string { return fmt.Sprintf("p%03d", i) }

func (s *subject) file(i int) string { return filepath.Join(s.dir, "manifests", podName(i)+".yaml") }

// write writes a new manifest, whole at once, and returns its number.
func (s *subject) write() (int, error) {
	i := s.written
	s.written++
	command, err := json.Marshal(podCommand())
	if err != nil {
		return 0, err
	}
	// The kubelet does not know the annotation and needs none: it delays only the
	// second crash.
	text := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
  annotations: {nodeagent.dev/restart-initial-backoff: 0s}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: c
    image: %s
    imagePullPolicy: IfNotPresent
    command: %s
    resources: {requests: {cpu: 1m, memory: 4Mi}}
`, podName(i), podImage, command)
	tmp := filepath.Join(s.dir, podName(i))
	return i, errors.Join(os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, s.file(i)))
}
