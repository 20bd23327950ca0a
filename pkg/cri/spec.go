package cri

import (
	"context"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// annotationShimGroup makes the containers of a pod share one shim.
const annotationShimGroup = "io.containerd.runc.v2.group"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// spec builds the OCI spec of a container. Nothing is taken over from a default
// spec: its assumptions are not those of a pod.
func (r *Runtime) spec(ctx context.Context, sandbox *Sandbox, cfg *ContainerConfig, id string) (*specs.Spec, error) {
	args, err := processArgs(cfg)
	if err != nil {
		return nil, err
	}
	namespaces, err := r.specNamespaces(sandbox, cfg)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Terminal: cfg.Container.TTY,
			Args:     args,
			Env:      environment(cfg, sandbox.Hostname),
			Cwd:      workingDir(cfg),
			Rlimits:  openFiles(sandbox.HostID != 0),
			// The zero value would be written as 0; the pod's class decides.
			OOMScoreAdj: new(cfg.OOMScoreAdj),
		},
		Linux: &specs.Linux{
			CgroupsPath: cfg.CgroupsPath(id),
			Resources:   containerResources(cfg),
			Namespaces:  namespaces,
			UIDMappings: idMappings(sandbox), GIDMappings: idMappings(sandbox),
		},
		Annotations: map[string]string{annotationShimGroup: string(cfg.Pod.UID)},
	}
	if err := r.specMounts(s, sandbox, cfg); err != nil {
		return nil, err
	}
	security := securityOf(cfg)
	if err := security.apply(s); err != nil {
		return nil, err
	}
	if err := r.specUser(ctx, s, cfg, id); err != nil {
		return nil, err
	}
	return s, security.confine(s) // last: the profile depends on the capabilities
}

// openFiles limits open files as systemd does for services: few at first, since
// old programs look at each that there could be, and many for who asks. Without
// it a container would have the limit that containerd happens to have; which it
// keeps where the kernel lets nobody set it: for a process of other users, which
// ownUsers says, that takes CAP_SYS_RESOURCE.
func openFiles(ownUsers bool) []specs.POSIXRlimit {
	const soft, hard = 1024, 512 << 10
	if ownUsers {
		if can, err := boundingSet(); err != nil || !slices.Contains(can, "CAP_SYS_RESOURCE") {
			return nil
		}
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil || own.Max > hard {
		own.Max = hard
	}
	return []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: min(soft, own.Max), Hard: own.Max}}
}

// processArgs combines the pod's command and args with the image's.
func processArgs(cfg *ContainerConfig) ([]string, error) {
	command, args := cfg.Command, cfg.Args
	if len(command) == 0 {
		command = cfg.Image.Config.Entrypoint
		if len(command) == 1 && command[0] == "" {
			command = nil
		}
		if len(args) == 0 {
			args = cfg.Image.Config.Cmd
		}
	}
	out := slices.Concat(command, args)
	if len(out) == 0 {
		return nil, fmt.Errorf("no command specified: neither the pod nor image %s names one", cfg.Image.Name)
	}
	return out, nil
}

// environment is the image's environment, overridden by the pod's.
func environment(cfg *ContainerConfig, hostname string) []string {
	base := []string{defaultPath, "HOSTNAME=" + hostname}
	if cfg.Container.TTY {
		base = append(base, "TERM=xterm")
	}
	var out []string
	index := map[string]int{}
	for _, kv := range slices.Concat(base, cfg.Image.Config.Env, cfg.Env) {
		key, _, _ := strings.Cut(kv, "=")
		if i, known := index[key]; known {
			out[i] = kv
			continue
		}
		index[key] = len(out)
		out = append(out, kv)
	}
	return out
}

func workingDir(cfg *ContainerConfig) string {
	for _, dir := range []string{cfg.Container.WorkingDir, cfg.Image.Config.WorkingDir} {
		if dir != "" {
			return path.Join("/", dir) // never a path that a host descriptor could give meaning to
		}
	}
	return "/"
}

func containerResources(cfg *ContainerConfig) *specs.LinuxResources {
	res := &specs.LinuxResources{}
	if cfg.Resources != nil {
		c := *cfg.Resources
		res = &c
	}
	res.Devices = slices.Concat([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, res.Devices)
	return res
}

// specNamespaces lists the pod's namespaces by path and the container's own.
func (r *Runtime) specNamespaces(sandbox *Sandbox, cfg *ContainerConfig) ([]specs.LinuxNamespace, error) {
	out := append(podNamespaces(sandbox), specs.LinuxNamespace{Type: specs.MountNamespace})
	spec := &cfg.Pod.Spec
	switch {
	case spec.HostPID:
	case sandbox.PIDInit != 0:
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: pidNamespace(sandbox.PIDInit)})
	case cfg.Target != "":
		_, target := r.find(cfg.Target)
		if target == nil || r.get(target).State != Running {
			return nil, fmt.Errorf("see the processes of container %s: %w", cfg.Target, ErrNotRunning)
		}
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: pidNamespace(r.get(target).PID)})
	default:
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if r.cfg.CgroupV2 && !privileged(cfg.Container) {
		out = append(out, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	slices.SortFunc(out, func(a, b specs.LinuxNamespace) int { return strings.Compare(string(a.Type), string(b.Type)) })
	return out, nil
}

func pidNamespace(pid uint32) string { return fmt.Sprintf("/proc/%d/ns/pid", pid) }

// podNamespaces are those that the containers of a pod join.
func podNamespaces(sandbox *Sandbox) []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for kind, path := range map[specs.LinuxNamespaceType]string{
		specs.NetworkNamespace: sandbox.NetNS, specs.IPCNamespace: sandbox.IPCNS, specs.UTSNamespace: sandbox.UTSNS,
		specs.UserNamespace: sandbox.UserNS,
	} {
		if path != "" {
			out = append(out, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	return out
}

// specMounts adds the standard mounts, the pod's files and the container's volumes.
func (r *Runtime) specMounts(s *specs.Spec, sandbox *Sandbox, cfg *ContainerConfig) error {
	sys, cgroup := "ro", "ro"
	if privileged(cfg.Container) {
		sys, cgroup = "rw", "rw"
	}
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", cgroup}},
	}
	if r.cfg.CgroupV2 && privileged(cfg.Container) {
		options, err := cgroupOptions("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		last := &s.Mounts[len(s.Mounts)-1]
		last.Options = append(last.Options, options...)
	}
	var extra []specs.Mount
	for _, m := range r.podFiles(cfg) {
		if !slices.ContainsFunc(cfg.Mounts, func(v Mount) bool { return path.Clean(v.ContainerPath) == m.Destination }) {
			extra = append(extra, m)
		}
	}
	for i := range cfg.Mounts {
		m, err := bindMount(&cfg.Mounts[i])
		if err != nil {
			return err
		}
		m.UIDMappings, m.GIDMappings = idMappings(sandbox), idMappings(sandbox)
		if m.Destination == "/dev" { // the pod brings its own
			s.Mounts = slices.DeleteFunc(s.Mounts, func(d specs.Mount) bool {
				return d.Destination == "/dev" || strings.HasPrefix(d.Destination, "/dev/")
			})
		}
		switch cfg.Mounts[i].Propagation {
		case corev1.MountPropagationBidirectional:
			s.Linux.RootfsPropagation = "rshared"
		case corev1.MountPropagationHostToContainer:
			if s.Linux.RootfsPropagation == "" {
				s.Linux.RootfsPropagation = "rslave"
			}
		}
		extra = append(extra, m)
	}
	// Parents before what is mounted inside them.
	slices.SortStableFunc(extra, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	s.Mounts = append(s.Mounts, extra...)
	return nil
}

// podFiles are the files of the sandbox that every container sees.
func (r *Runtime) podFiles(cfg *ContainerConfig) []specs.Mount {
	dir := r.sandboxDir(cfg.Pod.UID)
	access := "rw"
	if sc := cfg.Container.SecurityContext; sc != nil && ptr.Deref(sc.ReadOnlyRootFilesystem, false) {
		access = "ro"
	}
	var out []specs.Mount
	for _, f := range []string{"hostname", "hosts", "resolv.conf"} {
		out = append(out, specs.Mount{
			Destination: "/etc/" + f, Type: "bind", Source: filepath.Join(dir, f), Options: []string{"rbind", "rprivate", access},
		})
	}
	shm := filepath.Join(dir, "shm")
	if cfg.Pod.Spec.HostIPC {
		shm = "/dev/shm"
	}
	out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: shm, Options: []string{"rbind", "rprivate", "rw", "nosuid", "noexec", "nodev"}})
	if cfg.TerminationLog != "" && cfg.Container.TerminationMessagePath != "" {
		out = append(out, specs.Mount{
			Destination: path.Clean(cfg.Container.TerminationMessagePath), Type: "bind", Source: cfg.TerminationLog, Options: []string{"rbind", "rprivate", "rw"},
		})
	}
	return out
}

// bindMount turns a volume mount into its OCI form. It refuses targets through
// which a pod could change what the runtime itself relies on.
func bindMount(m *Mount) (specs.Mount, error) {
	target := path.Join("/", m.ContainerPath)
	if target == "/" || target == "/proc" || strings.HasPrefix(target, "/proc/") {
		return specs.Mount{}, fmt.Errorf("mountPath %q: volumes may not be mounted over the root or /proc", m.ContainerPath)
	}
	options := []string{"rbind"}
	switch m.Propagation {
	case corev1.MountPropagationBidirectional:
		options = append(options, "rshared")
	case corev1.MountPropagationHostToContainer:
		options = append(options, "rslave")
	default:
		options = append(options, "rprivate")
	}
	switch {
	case m.ReadOnly && m.RecursiveReadOnly:
		options = append(options, "rro")
	case m.ReadOnly:
		options = append(options, "ro")
	default:
		options = append(options, "rw")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: m.HostPath, Options: options}, nil
}

func privileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && ptr.Deref(c.SecurityContext.Privileged, false)
}

// seccompProfile turns the pod's choice into a profile; nil means unconfined.
func seccompProfile(s *specs.Spec, p *corev1.SeccompProfile, localhost func(string) (*specs.LinuxSeccomp, error)) (*specs.LinuxSeccomp, error) {
	if p == nil {
		return nil, nil
	}
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		return nil, nil
	case corev1.SeccompProfileTypeRuntimeDefault:
		return seccomp.DefaultProfile(s), nil
	case corev1.SeccompProfileTypeLocalhost:
		return localhost(ptr.Deref(p.LocalhostProfile, ""))
	default:
		return nil, fmt.Errorf("unknown seccomp profile type %q", p.Type)
	}
}

// hostDevices adds every device of the machine, for privileged containers.
func hostDevices(s *specs.Spec) error {
	devices, err := oci.HostDevices()
	if err != nil {
		return fmt.Errorf("list the machine's devices: %w", err)
	}
	byPath := map[string]specs.LinuxDevice{}
	for _, d := range devices {
		byPath[d.Path] = d
	}
	for _, p := range slices.Sorted(maps.Keys(byPath)) {
		s.Linux.Devices = append(s.Linux.Devices, byPath[p])
	}
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	return nil
}
