package cri

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// sandboxRecord is sandbox.json: all that is needed to end a sandbox after a crash.
type sandboxRecord struct {
	Sandbox
	Namespace   string             `json:"namespace"`
	Name        string             `json:"name"`
	UID         types.UID          `json:"uid"`
	Ports       []corev1.Container `json:"ports,omitempty"` // names and ports only
	Annotations map[string]string  `json:"annotations,omitempty"`
	CNI         json.RawMessage    `json:"cni,omitempty"`
	Boot        string             `json:"boot"`
	// SharePID says that there is, or is about to be, an init process.
	SharePID bool `json:"sharePID,omitempty"`
}

func (r *Runtime) sandboxDir(uid types.UID) string {
	return filepath.Join(r.cfg.StateDir, "sandboxes", string(uid))
}

func leaseID(uid types.UID) string { return "pod-" + string(uid) }

// StartSandbox makes the sandbox of a pod. It returns the one that is there when
// that is ready, and replaces one that is not.
func (r *Runtime) StartSandbox(ctx context.Context, cfg SandboxConfig) (Sandbox, error) {
	p := r.ensurePod(cfg.Pod.UID, cfg.Pod.Namespace, cfg.Pod.Name)
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()
	if s, ok := r.sandboxOf(p); ok {
		if s.Ready && r.intact(&s) {
			return s, nil
		}
		if err := r.stopSandbox(ctx, p); err != nil {
			return Sandbox{}, err
		}
	}
	if err := r.ensureLease(ctx, p.uid); err != nil {
		return Sandbox{}, err
	}
	record, err := r.newRecord(&cfg)
	if err != nil {
		return Sandbox{}, err
	}
	var back undo
	if err := r.buildSandbox(ctx, p, &cfg, record, &back); err != nil {
		record.Error = err.Error()
		return Sandbox{}, errors.Join(fmt.Errorf("start sandbox of pod %s/%s: %w", p.namespace, p.name, err), back.run(ctx))
	}
	r.setSandbox(p, &record.Sandbox)
	return record.Sandbox, nil
}

func (r *Runtime) buildSandbox(ctx context.Context, p *podState, cfg *SandboxConfig, record *sandboxRecord, back *undo) error {
	dir := r.sandboxDir(cfg.Pod.UID)
	if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o711); err != nil {
		return err
	}
	back.add(func(context.Context) error { return os.RemoveAll(dir) })
	// On disk before anything exists that it would take to undo.
	if err := r.writeRecord(record); err != nil {
		return err
	}
	pins := pinsOf(&record.Sandbox)
	back.add(func(context.Context) error { return unpinNamespaces(pins) })
	begin := time.Now()
	if err := r.pin(pins, cfg, record); err != nil {
		return err
	}
	r.cfg.Log.Debug("namespaces pinned", "uid", record.UID, "took", time.Since(begin))
	back.add(func(context.Context) error { return unmountAndRemove(filepath.Join(dir, "shm")) })
	if err := r.writeSandboxFiles(cfg, record); err != nil {
		return err
	}
	if !record.HostNetwork && r.cfg.Network != nil {
		back.add(func(ctx context.Context) error { return r.cfg.Network.Del(ctx, record.ID, record.NetNS, cfg.Pod) })
		begin := time.Now()
		ips, result, err := r.cfg.Network.Add(ctx, record.ID, record.NetNS, cfg.CgroupParent, cfg.Pod)
		if err != nil {
			return fmt.Errorf("attach to the network: %w", err)
		}
		record.IPs, record.CNI = ips, result
		r.cfg.Log.Debug("network attached", "uid", record.UID, "took", time.Since(begin))
	}
	if err := r.writeHosts(cfg, record); err != nil {
		return err
	}
	if ptr.Deref(cfg.Pod.Spec.ShareProcessNamespace, false) {
		back.add(func(ctx context.Context) error { return r.stopInit(ctx, p, record.ID) })
		if err := r.startInit(ctx, p, cfg, record); err != nil {
			return err
		}
		r.spawn(func(ctx context.Context) { r.watchInit(ctx, record.UID, record.ID) })
	}
	record.Ready = true
	return r.writeRecord(record)
}

// pin makes the sandbox's namespaces.
func (r *Runtime) pin(pins []pin, cfg *SandboxConfig, record *sandboxRecord) error {
	setup := func() error { return r.insideNamespaces(cfg, &record.Sandbox) }
	if record.HostID != 0 {
		return pinWithUsers(pins, record.HostID, setup)
	}
	return pinNamespaces(pins, setup)
}

// namespacePaths says where the namespaces of a pod are pinned.
func (r *Runtime) namespacePaths(pod *corev1.Pod) Sandbox {
	ns := func(name string) string { return filepath.Join(r.sandboxDir(pod.UID), "ns", name) }
	s := Sandbox{HostNetwork: pod.Spec.HostNetwork}
	if !pod.Spec.HostNetwork {
		s.NetNS, s.UTSNS = ns("net"), ns("uts")
	}
	if !pod.Spec.HostIPC {
		s.IPCNS = ns("ipc")
	}
	if ownUsers(pod) {
		s.UserNS = ns("user")
	}
	return s
}

func (r *Runtime) newRecord(cfg *SandboxConfig) (*sandboxRecord, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	pod := cfg.Pod
	sandbox := r.namespacePaths(pod)
	sandbox.ID, sandbox.Hostname, sandbox.CreatedAt = id, cfg.Hostname, time.Now()
	record := &sandboxRecord{
		Sandbox:  sandbox,
		SharePID: ptr.Deref(pod.Spec.ShareProcessNamespace, false), Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Annotations: pod.Annotations, Boot: r.bootID,
	}
	for _, c := range pod.Spec.Containers {
		record.Ports = append(record.Ports, corev1.Container{Name: c.Name, Ports: c.Ports})
	}
	if ownUsers(pod) {
		if record.HostID, err = r.takeIDs(pod.UID); err != nil {
			return nil, err
		}
	}
	return record, nil
}

// pod is the part of the pod that ending its network needs.
func (s *sandboxRecord) pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, Annotations: s.Annotations},
		Spec:       corev1.PodSpec{Containers: s.Ports, HostNetwork: s.HostNetwork},
	}
}

func pinsOf(s *Sandbox) []pin {
	var pins []pin
	for _, p := range []pin{
		{unix.CLONE_NEWUSER, "user", s.UserNS}, {unix.CLONE_NEWNET, "net", s.NetNS}, {unix.CLONE_NEWIPC, "ipc", s.IPCNS}, {unix.CLONE_NEWUTS, "uts", s.UTSNS},
	} {
		if p.path != "" {
			pins = append(pins, p)
		}
	}
	return pins
}

// insideNamespaces runs on the thread that is in the new namespaces.
func (r *Runtime) insideNamespaces(cfg *SandboxConfig, s *Sandbox) error {
	if s.UTSNS != "" {
		if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", cfg.Hostname, err)
		}
	}
	if s.NetNS != "" {
		if err := linkUp(); err != nil {
			return err
		}
		for _, d := range [][2]string{
			// What containerd's CRI does by default: low ports and ping without privilege.
			{"net.ipv4.ip_unprivileged_port_start", "0"}, {"net.ipv4.ping_group_range", "0 2147483647"},
		} {
			if err := setSysctl(d[0], d[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if sc := cfg.Pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			if err := setSysctl(s.Name, s.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// intact says whether a sandbox's namespaces are still there.
func (r *Runtime) intact(s *Sandbox) bool {
	for _, p := range pinsOf(s) {
		if !pinned(p.path) {
			return false
		}
	}
	return true
}

func (r *Runtime) sandboxOf(p *podState) (Sandbox, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.sandbox == nil {
		return Sandbox{}, false
	}
	return *p.sandbox, true
}

func (r *Runtime) setSandbox(p *podState, s *Sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s != nil {
		c := *s
		s = &c
	}
	p.sandbox = s
}

// StopSandbox kills what still runs in a pod and takes its sandbox apart. A pod
// without a sandbox is success.
func (r *Runtime) StopSandbox(ctx context.Context, uid types.UID) error {
	r.mu.Lock()
	p := r.pods[uid]
	r.mu.Unlock()
	if p == nil {
		return nil
	}
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()
	return r.stopSandbox(ctx, p)
}

// stopSandbox does the work of StopSandbox; the caller holds p.lifecycle.
func (r *Runtime) stopSandbox(ctx context.Context, p *podState) error {
	if err := r.killAll(ctx, p); err != nil {
		return err
	}
	record, err := r.readRecord(p.uid)
	if errors.Is(err, fs.ErrNotExist) {
		r.setSandbox(p, nil)
		return nil
	}
	if err != nil {
		return err
	}
	if !record.HostNetwork && r.cfg.Network != nil {
		netns := record.NetNS
		if !pinned(netns) {
			netns = "" // the addresses must be released all the same
		}
		if err := r.cfg.Network.Del(ctx, record.ID, netns, record.pod()); err != nil {
			return fmt.Errorf("detach pod %s/%s from the network: %w", p.namespace, p.name, err)
		}
	}
	if record.PIDInit != 0 || record.SharePID {
		if err := r.stopInit(ctx, p, record.ID); err != nil {
			return fmt.Errorf("sandbox of pod %s/%s: %w", p.namespace, p.name, err)
		}
	}
	dir := r.sandboxDir(p.uid)
	if err := errors.Join(unpinNamespaces(pinsOf(&record.Sandbox)), unmountAndRemove(filepath.Join(dir, "shm"))); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	r.setSandbox(p, nil)
	return nil
}

// RemoveSandbox removes all that is left of a pod: sandbox, containers, lease
// and state. A pod that is not there is success.
func (r *Runtime) RemoveSandbox(ctx context.Context, uid types.UID) error {
	r.mu.Lock()
	p := r.pods[uid]
	r.mu.Unlock()
	if p == nil {
		return nil
	}
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()
	if err := r.stopSandbox(ctx, p); err != nil {
		return err
	}
	r.mu.Lock()
	var ids []string
	for id := range p.containers {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, r.RemoveContainer(ctx, id, true))
	}
	p.shim.Lock()
	errs = append(errs, r.tidyShim(p)) // the last agent may have been killed before it did
	p.shim.Unlock()
	errs = append(errs, removeEmptyLogDirs(r.podLogDir(p.namespace, p.name, uid)))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := r.client.LeasesService().Delete(ctx, leases.Lease{ID: leaseID(uid)}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete the lease of pod %s: %w", uid, err)
	}
	r.mu.Lock()
	delete(r.pods, uid)
	r.mu.Unlock()
	return nil
}

// ensureLease makes the lease that keeps a pod's snapshots until it is removed.
func (r *Runtime) ensureLease(ctx context.Context, uid types.UID) error {
	_, err := r.client.LeasesService().Create(ctx, leases.WithID(leaseID(uid)), leases.WithLabel(labelPodUID, string(uid)))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("make the lease of pod %s: %w", uid, err)
	}
	return nil
}

func (r *Runtime) writeRecord(record *sandboxRecord) error {
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return writeFileAtomically(filepath.Join(r.sandboxDir(record.UID), "sandbox.json"), data, 0o600)
}

func (r *Runtime) readRecord(uid types.UID) (*sandboxRecord, error) {
	data, err := os.ReadFile(filepath.Join(r.sandboxDir(uid), "sandbox.json"))
	if err != nil {
		return nil, err
	}
	record := &sandboxRecord{}
	if err := json.Unmarshal(data, record); err != nil {
		return nil, fmt.Errorf("sandbox record of pod %s: %w", uid, err)
	}
	return record, nil
}

// writeFileAtomically replaces a file whole. The state directory does not outlive
// the machine, so nothing is synced.
func writeFileAtomically(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// newID makes a random ID in the form that tools expect of a container.
func newID() (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}
