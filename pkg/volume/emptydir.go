package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// emptyDir is a directory that lives as long as its pod, on disk or in memory. It
// gets owner and mode before anyone can see it and never again: what containers
// make of it later is theirs.
func (s *Set) emptyDir(pod *corev1.Pod, v *corev1.Volume) (Mounted, error) {
	dir := s.dir(pod.UID, "empty-dir", v.Name)
	if v.EmptyDir.Medium == corev1.StorageMediumDefault {
		return Mounted{HostPath: dir}, emptyDirOnDisk(dir, pod, v.EmptyDir)
	}
	if err := mkdirAll(dir); err != nil {
		return Mounted{}, err
	}
	mounted, err := isMountPoint(dir)
	if err == nil && !mounted {
		err = s.mountMemory(dir, pod, v.EmptyDir)
	}
	return Mounted{HostPath: dir}, err
}

// emptyDirOnDisk makes the directory under another name and moves it into place
// when it is complete.
func emptyDirOnDisk(dir string, pod *corev1.Pod, e *corev1.EmptyDirVolumeSource) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := dir + ".new" // no volume can have this name
	if err := mkdirAll(fresh); err != nil {
		return err
	}
	mode, group := rootOf(pod, e, 0o777)
	if err := os.Chown(fresh, -1, group); err != nil {
		return fmt.Errorf("give %s to group %d: %w", fresh, group, err)
	}
	if err := unix.Chmod(fresh, mode); err != nil { // after chown, which may clear bits
		return fmt.Errorf("set the mode of %s: %w", fresh, err)
	}
	return os.Rename(fresh, dir)
}

// rootOf is the mode and the group of an emptyDir; -1 is the agent's own. With an
// fsGroup, what is made in it gets that group. fsGroupChangePolicy has no say:
// there is nothing to change in a volume that begins empty.
func rootOf(pod *corev1.Pod, e *corev1.EmptyDirVolumeSource, mode uint32) (uint32, int) {
	if e.Mode != nil {
		mode = uint32(*e.Mode)
	}
	sc := pod.Spec.SecurityContext
	if sc == nil || sc.FSGroup == nil {
		return mode, -1
	}
	return mode | unix.S_ISGID | 0o770, int(*sc.FSGroup)
}

// mountMemory mounts a tmpfs, or a file system of huge pages.
func (s *Set) mountMemory(dir string, pod *corev1.Pod, e *corev1.EmptyDirVolumeSource) error {
	mode, group := rootOf(pod, e, 0o1777)
	options := fmt.Sprintf("mode=%o,gid=%d", mode, max(group, 0))
	if e.Medium == corev1.StorageMediumMemory {
		if size := s.memorySize(pod, e.SizeLimit); size > 0 {
			options = fmt.Sprintf("%s,size=%d", options, size)
		}
		return mountTmpfs(dir, unix.MS_NOSUID|unix.MS_NODEV, options)
	}
	size, err := hugePageSize(pod, e.Medium)
	if err != nil {
		return err
	}
	options = fmt.Sprintf("%s,pagesize=%d", options, size)
	if e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
		options = fmt.Sprintf("%s,size=%d", options, e.SizeLimit.Value())
	}
	if err := unix.Mount("nodev", dir, "hugetlbfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount hugetlbfs with pages of %d bytes: %w", size, err)
	}
	return nil
}

// mountTmpfs keeps what is in it out of swap where the kernel can (6.4).
func mountTmpfs(dir string, flags uintptr, options string) error {
	err := unix.Mount("tmpfs", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", flags, options)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}

// memorySize is the smallest of the volume's limit, what the pod may use and what
// the node offers, in bytes; 0 is no limit.
func (s *Set) memorySize(pod *corev1.Pod, limit *resource.Quantity) int64 {
	size := s.NodeAllocatable.Memory().Value()
	if memoryIsLimited(pod) {
		limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
		size = atMost(size, limits.Memory().Value())
	}
	if limit != nil {
		size = atMost(size, limit.Value())
	}
	return size
}

// atMost lowers a size; 0 is no limit.
func atMost(size, limit int64) int64 {
	if limit > 0 && (size == 0 || limit < size) {
		return limit
	}
	return size
}

// memoryIsLimited says whether the pod as a whole has a memory limit: its own, or
// one on each of its containers.
func memoryIsLimited(pod *corev1.Pod) bool {
	if r := pod.Spec.Resources; r != nil && !r.Limits.Memory().IsZero() {
		return true
	}
	unlimited := func(c corev1.Container) bool { return c.Resources.Limits.Memory().IsZero() }
	return !slices.ContainsFunc(pod.Spec.InitContainers, unlimited) && !slices.ContainsFunc(pod.Spec.Containers, unlimited)
}

// hugePageSize is the page size of a medium, in bytes. The pod must ask for pages
// of that size, and where the medium names none, of one size only.
func hugePageSize(pod *corev1.Pod, medium corev1.StorageMedium) (int64, error) {
	var sizes []string
	for name := range resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}) {
		if size, huge := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); huge {
			sizes = append(sizes, size)
		}
	}
	size, named := strings.CutPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix))
	switch {
	case named && !slices.ContainsFunc(sizes, func(s string) bool { return sameQuantity(s, size) }):
		return 0, fmt.Errorf("medium %s: no container of the pod requests hugepages-%s", medium, size)
	case named:
	case len(sizes) != 1:
		return 0, fmt.Errorf("medium %s: the containers request huge pages of %d sizes, not of one: name the size, as in HugePages-2Mi", medium, len(sizes))
	default:
		size = sizes[0]
	}
	q, err := resource.ParseQuantity(size)
	if err != nil {
		return 0, fmt.Errorf("page size %q: %w", size, err)
	}
	return q.Value(), nil
}

func sameQuantity(a, b string) bool {
	x, errX := resource.ParseQuantity(a)
	y, errY := resource.ParseQuantity(b)
	return errX == nil && errY == nil && x.Cmp(y) == 0
}
