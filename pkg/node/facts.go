package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Facts are what is known of this machine at one moment.
type Facts struct {
	Hostname string
	// IPs are its addresses, primary first.
	IPs                   []string
	Capacity, Allocatable corev1.ResourceList
	Info                  corev1.NodeSystemInfo
	Images                []corev1.ContainerImage
	Handlers              []corev1.NodeRuntimeHandler
	Features              *corev1.NodeFeatures
	// DeclaredFeatures are what pods may count on that not every node can do.
	DeclaredFeatures []string
	// Port is where the kubelet's API is served; 0 is nowhere.
	Port int32
	// Causes say why no pod can be started here; without one the node is ready.
	Causes []string
	// Pressures say of which of its resources the machine has too little.
	Pressures map[corev1.NodeConditionType]bool
}

// Roots are where the machine's files are; tests have their own.
type Roots struct {
	Proc, Sys, Etc, Var string
}

// SystemRoots are those of this machine.
func SystemRoots() Roots { return Roots{Proc: "/proc", Sys: "/sys", Etc: "/etc", Var: "/var"} }

// ReadInfo reads what the machine says of itself. What is missing stays empty:
// a container or a small board has no DMI, and a fresh image no machine ID.
func ReadInfo(r Roots) (corev1.NodeSystemInfo, error) {
	info := corev1.NodeSystemInfo{
		MachineID:  firstLine(filepath.Join(r.Etc, "machine-id"), filepath.Join(r.Var, "lib/dbus/machine-id")),
		SystemUUID: firstLine(filepath.Join(r.Sys, "class/dmi/id/product_uuid"), filepath.Join(r.Proc, "device-tree/vm,uuid"), filepath.Join(r.Etc, "machine-id")),
		BootID:     firstLine(filepath.Join(r.Proc, "sys/kernel/random/boot_id")),

		KernelVersion: firstLine(filepath.Join(r.Proc, "sys/kernel/osrelease")),
		OSImage:       osImage(filepath.Join(r.Etc, "os-release")),
	}
	memory, err := readMeminfo(r.Proc)
	if err != nil {
		return info, err
	}
	if swap := memory["SwapTotal"]; swap > 0 {
		info.Swap = &corev1.NodeSwapStatus{Capacity: &swap}
	}
	return info, nil
}

// firstLine is the first line of the first file that has one.
func firstLine(paths ...string) string {
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if line, _, _ := strings.Cut(strings.Trim(string(data), "\x00\n "), "\n"); err == nil && line != "" {
			return line
		}
	}
	return ""
}

func osImage(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"'`)
		}
	}
	return "Linux"
}

// Version is a Kubernetes version, so that whoever checks for skew finds what is
// expected, which names this program as well.
func Version(kubernetes, agent string) string {
	allowed := func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}
	return fmt.Sprintf("%s+nodeagent-%s", kubernetes, strings.Map(allowed, agent))
}
