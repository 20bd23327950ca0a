package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// finding is what a check saw. Fix is the command or step that mends it.
type finding struct {
	Check  string `json:"check"`
	Level  string `json:"result"` // ok, warn or fail
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

func ok(format string, args ...any) finding {
	return finding{Level: "ok", Detail: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) finding {
	return finding{Level: "warn", Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(fix, format string, args ...any) finding {
	return finding{Level: "fail", Detail: fmt.Sprintf(format, args...), Fix: fix}
}

// check is one thing the agent needs of a machine.
type check struct {
	name string
	run  func(config.Config) finding
}

func checks() []check {
	return []check{
		{"user", checkUser},
		{"capabilities", checkCapabilities},
		{"cgroups", checkCgroups},
		{"systemd", checkSystemd},
		{"namespaces", checkNamespaces},
		{"overlayfs", checkOverlay},
		{"seccomp", checkSeccomp},
		{"pressure", checkPressure},
		{"containerd", checkContainerd},
		{"runc", checkProgram("runc")},
		{"shim", checkProgram("containerd-shim-runc-v2")},
		{"cni plugins", checkCNI},
		{"iptables", checkIptables},
		{"ip forwarding", checkForwarding},
		{"inotify", checkInotify},
	}
}

func newDoctorCommand() *cobra.Command {
	flags := &runFlags{}
	var output string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks, and how to mend it",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			return diagnose(c.OutOrStdout(), cfg, output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, yaml or jsonpath=TEMPLATE")
	flags.add(c)
	return c
}

// diagnose runs all checks; its error counts those that failed.
func diagnose(out io.Writer, cfg config.Config, output string) error {
	var findings []finding
	failed := 0
	t := &table{header: []string{"CHECK", "RESULT", "DETAIL"}}
	for _, ch := range checks() {
		f := ch.run(cfg)
		f.Check = ch.name
		findings = append(findings, f)
		if f.Level == "fail" {
			failed++
		}
		t.add([]string{f.Check, f.Level, f.Detail})
		if f.Fix != "" {
			t.add([]string{"", "", "  mend: " + f.Fix})
		}
	}
	var err error
	if output != "" {
		err = printObject(out, output, findings)
	} else {
		err = t.print(out, true)
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d checks failed", failed, len(findings))
	}
	return err
}

func checkUser(config.Config) finding {
	if os.Geteuid() != 0 {
		return fail("run as root: sudo nodeagent …", "uid is %d; cgroups, namespaces and mounts need root", os.Geteuid())
	}
	return ok("root")
}

func checkCapabilities(config.Config) finding {
	if os.Geteuid() != 0 {
		return warn("", "not root, not checked")
	}
	var lacking []string
	for name, bit := range map[string]uintptr{
		"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_CHOWN": unix.CAP_CHOWN,
		"CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_KILL": unix.CAP_KILL, "CAP_MKNOD": unix.CAP_MKNOD,
	} {
		if !hasCapability(bit) {
			lacking = append(lacking, name)
		}
	}
	slices.Sort(lacking)
	if len(lacking) > 0 {
		return fail("start the agent with these capabilities", "missing %s", strings.Join(lacking, ", "))
	}
	if !hasCapability(unix.CAP_SYS_RESOURCE) {
		return warn("start the agent with CAP_SYS_RESOURCE if you can",
			"CAP_SYS_RESOURCE is missing: oom_score_adj cannot be lowered below the agent's own")
	}
	return ok("all present")
}

func hasCapability(bit uintptr) bool {
	v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, bit, 0, 0, 0)
	return err == nil && v == 1
}

func checkCgroups(config.Config) finding {
	const root = "/sys/fs/cgroup"
	if data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
		for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
			if !slices.Contains(strings.Fields(string(data)), c) {
				return fail("enable it on the kernel command line (for memory: cgroup_enable=memory)", "v2, controller %s is missing", c)
			}
		}
		return ok("v2: %s", strings.TrimSpace(string(data)))
	}
	var missing []string
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids"} {
		if _, err := os.Stat(filepath.Join(root, c)); err != nil {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fail("mount the cgroup file system: mount -t cgroup2 none "+root, "no unified hierarchy, and no v1 controller %s", strings.Join(missing, ", "))
	}
	return warn("boot with systemd.unified_cgroup_hierarchy=1 for memory protection and pressure figures", "v1 (legacy or hybrid)")
}

func checkSystemd(cfg config.Config) finding {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		if cfg.Kubelet.CgroupDriver == "systemd" {
			return fail("set cgroupDriver: cgroupfs, or boot with systemd", "systemd is not the running init, but the configuration asks for its cgroup driver")
		}
		return ok("not the running init; cgroups are written directly (cgroupfs)")
	}
	if err := answers("/run/systemd/private"); err != nil {
		return warn("run as root, or start dbus.service", "running, but its private socket does not answer: %v", err)
	}
	return ok("running")
}

// answers says whether something listens on a unix socket.
func answers(socket string) error {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

func checkNamespaces(config.Config) finding {
	for _, n := range []string{"net", "ipc", "uts", "pid", "mnt", "user"} {
		if _, err := os.Stat("/proc/self/ns/" + n); err != nil {
			return fail("use a kernel with this namespace type", "no %s namespaces", n)
		}
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err != nil {
		return warn("use kernel 4.6 or newer", "no cgroup namespaces")
	}
	return ok("all types")
}

func checkOverlay(config.Config) finding {
	data, err := os.ReadFile("/proc/filesystems")
	if err == nil && strings.Contains(string(data), "overlay") {
		return ok("available")
	}
	return fail("modprobe overlay", "not registered with the kernel")
}

func checkSeccomp(config.Config) finding {
	if err := unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0); errors.Is(err, unix.EINVAL) {
		return warn("use a kernel with CONFIG_SECCOMP_FILTER", "not available: RuntimeDefault profiles cannot be applied")
	}
	return ok("available")
}

func checkPressure(config.Config) finding {
	if _, err := os.ReadFile("/proc/pressure/cpu"); err != nil {
		return warn("boot with psi=1", "no pressure stall information")
	}
	return ok("available")
}

func checkContainerd(cfg config.Config) finding {
	if answers(cfg.Agent.ContainerdAddress) == nil {
		return ok("answers on %s", cfg.Agent.ContainerdAddress)
	}
	if path, lookErr := lookProgram(cfg, "containerd"); lookErr == nil {
		return ok("none runs on %s; the embedded one would be %s", cfg.Agent.ContainerdAddress, path)
	}
	return fail("install containerd 2 or newer (`make tools` builds one), and name its directory with --runtime-bin-dir", "nothing answers on %s and no containerd was found", cfg.Agent.ContainerdAddress)
}

func checkProgram(name string) func(config.Config) finding {
	return func(cfg config.Config) finding {
		path, err := lookProgram(cfg, name)
		if err != nil {
			return fail("install it (`make tools` builds one), and name its directory with --runtime-bin-dir", "%s not found", name)
		}
		return ok("%s", path)
	}
}

// lookProgram finds a program in the configured directories, then in PATH.
func lookProgram(cfg config.Config, name string) (string, error) {
	for _, dir := range cfg.Agent.RuntimeBinDirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return exec.LookPath(name)
}

func checkCNI(cfg config.Config) finding {
	var missing []string
	for _, name := range []string{"bridge", "host-local", "loopback", "portmap"} {
		if !slices.ContainsFunc(cfg.Agent.CNIBinDirs, func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		}) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fail("apt-get install containernetworking-plugins, or name their directory with --cni-bin-dir", "%s not in %s",
			strings.Join(missing, ", "), strings.Join(cfg.Agent.CNIBinDirs, ", "))
	}
	return ok("in %s", strings.Join(cfg.Agent.CNIBinDirs, ", "))
}

func checkIptables(config.Config) finding {
	if path, err := exec.LookPath("iptables"); err == nil {
		return ok("%s", path)
	}
	if path, err := exec.LookPath("nft"); err == nil {
		return warn("apt-get install iptables", "only %s; the bridge's masquerading and host ports want iptables", path)
	}
	return fail("apt-get install iptables", "not found: masquerading and host ports need it")
}

func checkForwarding(config.Config) finding {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if errors.Is(err, fs.ErrNotExist) {
		return fail("use a kernel with IPv4", "no /proc/sys/net/ipv4")
	}
	if strings.TrimSpace(string(data)) != "1" {
		return warn("sysctl -w net.ipv4.ip_forward=1 (the bridge plugin does so at the first pod)", "off: pods do not reach other networks")
	}
	return ok("on")
}

func checkInotify(config.Config) finding {
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return fail("use a kernel with inotify", "not available: %v", err)
	}
	if strings.TrimSpace(string(data)) == "0" {
		return fail("sysctl -w fs.inotify.max_user_instances=128", "no instances allowed")
	}
	return ok("available")
}
