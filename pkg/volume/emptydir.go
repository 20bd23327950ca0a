package volume

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// emptyDir is a directory that lives as long as its pod, on disk or in memory.
func (s *Set) emptyDir(pod *corev1.Pod, v *corev1.Volume) (Mounted, error) {
	dir := s.dir(pod.UID, "empty-dir", v.Name)
	_, err := os.Lstat(dir)
	fresh := err != nil
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return Mounted{}, err
	}
	medium := v.EmptyDir.Medium
	if medium != corev1.StorageMediumDefault {
		mounted, err := isMountPoint(dir)
		if err != nil {
			return Mounted{}, err
		}
		fresh = !mounted
		if !mounted {
			if err := mountMemory(dir, pod, v.EmptyDir); err != nil {
				return Mounted{}, err
			}
		}
	}
	if fresh {
		if err := os.Chmod(dir, 0o777); err != nil { // the umask has its say in MkdirAll
			return Mounted{}, err
		}
	}
	return Mounted{HostPath: dir}, ownTree(dir, pod, false)
}

// mountMemory mounts a tmpfs, or a file system of huge pages.
func mountMemory(dir string, pod *corev1.Pod, e *corev1.EmptyDirVolumeSource) error {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if e.Medium == corev1.StorageMediumMemory {
		options := "mode=1777"
		if size := memorySize(pod, e.SizeLimit); size > 0 {
			options = fmt.Sprintf("%s,size=%d", options, size)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
		return nil
	}
	size, isHuge := hugePageSize(pod, e.Medium)
	if !isHuge {
		return fmt.Errorf("medium %q: want Memory, HugePages or HugePages-<size> of a size that the pod requests", e.Medium)
	}
	options := fmt.Sprintf("pagesize=%d", size)
	if e.SizeLimit != nil {
		options = fmt.Sprintf("%s,size=%d", options, e.SizeLimit.Value())
	}
	if err := unix.Mount("nodev", dir, "hugetlbfs", flags, options); err != nil {
		return fmt.Errorf("mount hugetlbfs: %w", err)
	}
	return nil
}

// memorySize is the smaller of the volume's limit and the pod's memory limit, in
// bytes; 0 is no limit.
func memorySize(pod *corev1.Pod, limit *resource.Quantity) int64 {
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	size := limits.Memory().Value()
	if limit != nil && limit.Value() > 0 && (size == 0 || limit.Value() < size) {
		size = limit.Value()
	}
	return size
}

// hugePageSize is the page size of a medium, in bytes.
func hugePageSize(pod *corev1.Pod, medium corev1.StorageMedium) (int64, bool) {
	const prefix = corev1.StorageMediumHugePagesPrefix
	if s := string(medium); len(s) > len(prefix) && s[:len(prefix)] == string(prefix) {
		q, err := resource.ParseQuantity(s[len(prefix):])
		return q.Value(), err == nil
	}
	if medium != corev1.StorageMediumHugePages {
		return 0, false
	}
	for r := range resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}) {
		if s := string(r); len(s) > len(corev1.ResourceHugePagesPrefix) && s[:len(corev1.ResourceHugePagesPrefix)] == corev1.ResourceHugePagesPrefix {
			q, err := resource.ParseQuantity(s[len(corev1.ResourceHugePagesPrefix):])
			return q.Value(), err == nil
		}
	}
	return 0, false
}
