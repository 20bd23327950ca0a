package cri

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// seccompRoot is where Localhost profiles are, as for the kubelet.
const seccompRoot = "/var/lib/kubelet/seccomp"

// defaultCapabilities are a container's when its pod says nothing.
func defaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// maskedPaths and readonlyPaths are procMount Default.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// security is a container's security context with the pod's folded in.
type security struct {
	corev1.SecurityContext
	seccompDefault bool
}

func securityOf(cfg *ContainerConfig) *security {
	s := &security{seccompDefault: cfg.SeccompDefault}
	if sc := cfg.Container.SecurityContext; sc != nil {
		s.SecurityContext = *sc
	}
	if pod := cfg.Pod.Spec.SecurityContext; pod != nil {
		if s.SeccompProfile == nil {
			s.SeccompProfile = pod.SeccompProfile
		}
		if s.AppArmorProfile == nil {
			s.AppArmorProfile = pod.AppArmorProfile
		}
	}
	return s
}

// apply sets everything but the profiles.
func (c *security) apply(s *specs.Spec) error {
	if ptr.Deref(c.Privileged, false) {
		return c.applyPrivileged(s)
	}
	caps, err := capabilities(c.Capabilities)
	if err != nil {
		return err
	}
	setCapabilities(s, caps)
	s.Process.NoNewPrivileges = c.AllowPrivilegeEscalation != nil && !*c.AllowPrivilegeEscalation
	s.Root.Readonly = ptr.Deref(c.ReadOnlyRootFilesystem, false)
	if ptr.Deref(c.ProcMount, corev1.DefaultProcMount) == corev1.DefaultProcMount {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = maskedPaths(), readonlyPaths()
	}
	return nil
}

// applyPrivileged gives what this machine really has: the capabilities that any
// process here can have, and every device.
func (c *security) applyPrivileged(s *specs.Spec) error {
	caps, err := boundingSet()
	if err != nil {
		return err
	}
	setCapabilities(s, caps)
	s.Root.Readonly = ptr.Deref(c.ReadOnlyRootFilesystem, false)
	return hostDevices(s)
}

// boundingSet is what a process of this machine can have at the most.
func boundingSet() ([]string, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("read this process's capabilities: %w", err)
	}
	defer f.Close()
	sets, err := cap.ParseProcPIDStatus(f)
	if err != nil {
		return nil, fmt.Errorf("read this process's capabilities: %w", err)
	}
	names, _ := cap.FromBitmap(sets[cap.Bounding])
	return names, nil
}

// setCapabilities leaves inheritable and ambient empty on purpose.
func setCapabilities(s *specs.Spec, caps []string) {
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// capabilities applies add and drop to the default set.
func capabilities(c *corev1.Capabilities) ([]string, error) {
	caps := defaultCapabilities()
	if c == nil {
		return caps, nil
	}
	current, err := boundingSet()
	if err != nil {
		return nil, err
	}
	if slices.Contains(c.Add, "ALL") {
		caps = slices.Clone(current)
	}
	if slices.Contains(c.Drop, "ALL") {
		caps = nil
	}
	for _, add := range c.Add {
		name := capabilityName(add)
		if add == "ALL" || slices.Contains(caps, name) {
			continue
		}
		if !slices.Contains(cap.Known(), name) {
			return nil, fmt.Errorf("unknown capability %q", add)
		}
		if !slices.Contains(current, name) {
			return nil, fmt.Errorf("capability %s is not available on this machine", name)
		}
		caps = append(caps, name)
	}
	for _, drop := range c.Drop {
		name := capabilityName(drop)
		caps = slices.DeleteFunc(caps, func(s string) bool { return s == name })
	}
	slices.Sort(caps)
	return caps, nil
}

func capabilityName(c corev1.Capability) string {
	name := strings.ToUpper(string(c))
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	return name
}

// confine sets the seccomp and AppArmor profiles; unreadable input is an error,
// never "unconfined".
func (c *security) confine(s *specs.Spec) error {
	if ptr.Deref(c.Privileged, false) {
		return c.confineAppArmor(s) // a profile by name is what the pod asked for
	}
	profile := c.SeccompProfile
	if profile == nil && c.seccompDefault {
		profile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	var err error
	if s.Linux.Seccomp, err = seccompProfile(s, profile, localSeccomp); err != nil {
		return err
	}
	return c.confineAppArmor(s)
}

func (c *security) confineAppArmor(s *specs.Spec) error {
	p := c.AppArmorProfile
	if p == nil || p.Type != corev1.AppArmorProfileTypeLocalhost {
		return nil // no profile is loaded for RuntimeDefault; see DECISIONS.md
	}
	name := ptr.Deref(p.LocalhostProfile, "")
	loaded, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	if err != nil {
		return fmt.Errorf("AppArmor profile %q: this machine has no AppArmor: %w", name, err)
	}
	for line := range strings.Lines(string(loaded)) {
		if have, _, _ := strings.Cut(line, " ("); have == name {
			s.Process.ApparmorProfile = name
			return nil
		}
	}
	return fmt.Errorf("AppArmor profile %q is not loaded", name)
}

// localSeccomp reads a profile of this machine.
func localSeccomp(name string) (*specs.LinuxSeccomp, error) {
	if name == "" || !filepath.IsLocal(name) {
		return nil, fmt.Errorf("seccomp profile %q: want a path below %s", name, seccompRoot)
	}
	data, err := os.ReadFile(filepath.Join(seccompRoot, name))
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %q: %w", name, err)
	}
	profile := &specs.LinuxSeccomp{}
	if err := json.Unmarshal(data, profile); err != nil {
		return nil, fmt.Errorf("seccomp profile %q: %w", name, err)
	}
	if profile.DefaultAction == "" {
		return nil, fmt.Errorf("seccomp profile %q has no defaultAction", name)
	}
	return profile, nil
}
