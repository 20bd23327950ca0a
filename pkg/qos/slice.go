package qos

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// name is a place in the hierarchy, independent of the driver.
type name []string

func (n name) child(component string) name { return append(slices.Clip(n), component) }

// cgroupfs is the path of n below a cgroup mount with the cgroupfs driver.
func (n name) cgroupfs() string { return "/" + path.Join(n...) }

// slice is the name of n's systemd unit: components joined by dashes, so that
// dashes inside a component become underscores.
func (n name) slice() string {
	if len(n) == 0 {
		return "-.slice"
	}
	escaped := make([]string, len(n))
	for i, c := range n {
		escaped[i] = strings.ReplaceAll(c, "-", "_")
	}
	return strings.Join(escaped, "-") + ".slice"
}

// parseName reads a cgroup that a user names: a path, or with systemd a slice.
func parseName(cgroup string, systemd bool) name {
	if !systemd {
		return strings.Split(strings.Trim(cgroup, "/"), "/")
	}
	parts := strings.Split(strings.TrimSuffix(path.Base(cgroup), ".slice"), "-")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], "_", "-")
	}
	return parts
}

// expandSlice is where systemd keeps a slice below a cgroup mount: each prefix
// of its name is a directory of its own. a-b.slice is at /a.slice/a-b.slice.
func expandSlice(slice string) (string, error) {
	base, isSlice := strings.CutSuffix(slice, ".slice")
	if !isSlice || strings.Contains(slice, "/") {
		return "", fmt.Errorf("%q is not a slice name", slice)
	}
	if base == "-" {
		return "/", nil
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(base, "-") {
		if part == "" {
			return "", fmt.Errorf("slice name %q has an empty part", slice)
		}
		prefix += part
		dir = path.Join(dir, prefix+".slice")
		prefix += "-"
	}
	return dir, nil
}

// podUID reads a UID out of the last component of a pod's cgroup.
func podUID(component string, systemd bool) (types.UID, bool) {
	if systemd {
		base, isSlice := strings.CutSuffix(component, ".slice")
		if !isSlice {
			return "", false
		}
		component = strings.ReplaceAll(base[strings.LastIndex(base, "-")+1:], "_", "-")
	}
	uid, isPod := strings.CutPrefix(component, "pod")
	return types.UID(uid), isPod && uid != ""
}

// PodCgroup is the cgroup of a pod.
type PodCgroup struct {
	// Path is the pod's directory below each cgroup mount.
	Path string
	// Unit is the pod's slice, or empty with the cgroupfs driver.
	Unit string
}

// ContainerPath is the OCI cgroupsPath of a container of the pod.
func (c PodCgroup) ContainerPath(id string) string {
	if c.Unit != "" {
		return c.Unit + ":cri-containerd:" + id
	}
	return path.Join(c.Path, id)
}

// tier is the component below kubepods for a class; Guaranteed pods have none.
func tier(class corev1.PodQOSClass) string {
	switch class {
	case corev1.PodQOSGuaranteed:
		return ""
	case corev1.PodQOSBurstable:
		return "burstable"
	case corev1.PodQOSBestEffort:
		return "besteffort"
	default:
		panic("qos: unknown class " + string(class))
	}
}
