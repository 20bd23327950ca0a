package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

const (
	unmountTries = 20
	unmountDelay = 50 * time.Millisecond
)

func isMountPoint(dir string) (bool, error) {
	mounted, err := mountinfo.Mounted(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return mounted, err
}

// unmountBelow unmounts everything at and below dir, innermost first, and
// returns when nothing is left.
func unmountBelow(ctx context.Context, dir string) error {
	var err error
	for range unmountTries {
		var mounts []*mountinfo.Info
		mounts, err = mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			return fmt.Errorf("list mounts: %w", err)
		}
		if len(mounts) == 0 {
			return nil
		}
		slices.SortFunc(mounts, func(a, b *mountinfo.Info) int { return len(b.Mountpoint) - len(a.Mountpoint) })
		for _, m := range mounts {
			if err = unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				err = nil // gone meanwhile
			}
		}
		if err == nil {
			continue
		}
		select { // a process that is ending still holds it
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(unmountDelay):
		}
	}
	return fmt.Errorf("unmount below %s: %w", dir, err)
}

// removeAll removes a directory that holds no mount. It refuses to go on when it
// meets another file system.
func removeAll(dir string) error {
	var root unix.Stat_t
	if err := unix.Lstat(dir, &root); err != nil {
		return err
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Dev != root.Dev {
			return fmt.Errorf("%s is on another file system: not removed", path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir)); err != nil || len(mounts) > 0 {
		return errors.Join(err, fmt.Errorf("%d mounts are left below %s: not removed", len(mounts), dir))
	}
	return os.RemoveAll(dir)
}

// ownTree gives a tree to the pod's fsGroup: group and group access, and on
// directories the bit that hands the group on. Links are not followed.
func ownTree(dir string, pod *corev1.Pod, readOnly bool) error {
	sc := pod.Spec.SecurityContext
	if sc == nil || sc.FSGroup == nil {
		return nil
	}
	group := int(*sc.FSGroup)
	if ptr.Deref(sc.FSGroupChangePolicy, corev1.FSGroupChangeAlways) == corev1.FSGroupChangeOnRootMismatch && owned(dir, group) {
		return nil
	}
	access := uint32(0o660)
	if readOnly {
		access = 0o440
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return ownOne(path, group, access)
	})
}

func owned(dir string, group int) bool {
	var st unix.Stat_t
	return unix.Lstat(dir, &st) == nil && int(st.Gid) == group && st.Mode&unix.S_ISGID != 0
}

// ownOne changes one file through a descriptor, so that a link that takes its
// place in between is not followed.
func ownOne(path string, group int, access uint32) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(fd, "", -1, group, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give %s to group %d: %w", path, group, err)
	}
	mode := st.Mode&0o7777 | access
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return nil
	case unix.S_IFDIR:
		mode |= unix.S_ISGID | 0o110
	}
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode); err != nil {
		return fmt.Errorf("set the mode of %s: %w", path, err)
	}
	return nil
}

// SubPath makes a path inside a volume safe to mount: it is opened below the
// volume without ever leaving it, and the open file is bound to a place of ours.
// A missing directory is made.
func (s *Set) SubPath(_ context.Context, pod *corev1.Pod, container string, mountIndex int, volumeHostPath, subPath string) (string, error) {
	if subPath == "" {
		return volumeHostPath, nil
	}
	fd, err := openBeneath(volumeHostPath, subPath)
	if err != nil {
		return "", fmt.Errorf("subPath %q of the volume: %w", subPath, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(s.podDir(pod.UID), "volume-subpaths", container, fmt.Sprint(mountIndex))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if mounted, err := isMountPoint(target); err != nil || mounted {
		if err != nil {
			return "", err
		}
		// Of an earlier attempt: what it shows may have been replaced since.
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
			return "", fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind subPath %q: %w", subPath, err)
	}
	return target, nil
}

func makeTarget(target string, dir bool) error {
	if dir {
		return os.MkdirAll(target, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// openBeneath opens a path below root and makes the directories that are
// missing. The kernel refuses every step that would lead out.
func openBeneath(root, path string) (int, error) {
	if !filepath.IsLocal(path) {
		return -1, errors.New("leads out of the volume")
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for part := range strings.SplitSeq(filepath.Clean(path), "/") {
		next, err := unix.Openat2(dir, part, how)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(dir, part, 0o750); err == nil || errors.Is(err, unix.EEXIST) {
				next, err = unix.Openat2(dir, part, how)
			}
		}
		if closeErr := unix.Close(dir); closeErr != nil {
			return -1, closeErr
		}
		if err != nil {
			return -1, err
		}
		dir = next
	}
	return dir, nil
}
