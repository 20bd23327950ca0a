package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// SubPath makes a path inside a volume safe to mount: it is opened below the
// volume without ever leaving it, and the open file is bound to a place of ours.
// A directory that is missing is made, with the mode of the volume.
func (s *Set) SubPath(_ context.Context, pod *corev1.Pod, container string, mountIndex int, volumeHostPath, subPath string) (string, error) {
	if subPath == "" {
		return volumeHostPath, nil
	}
	target := s.PlanSubPath(pod, container, mountIndex)
	// The volume may be a path of the machine, and the bind needs both in one view.
	return target, s.onHost(func() error { return bindSubPath(volumeHostPath, subPath, target) })
}

func bindSubPath(volumeHostPath, subPath, target string) error {
	fd, err := openBeneath(volumeHostPath, subPath)
	if err != nil {
		return fmt.Errorf("subPath %q of the volume: %w", subPath, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind subPath %q: %w", subPath, err)
	}
	return nil
}

// PlanSubPath is the place that SubPath returns.
func (s *Set) PlanSubPath(pod *corev1.Pod, container string, mountIndex int) string {
	return filepath.Join(s.podDir(pod.UID), "volume-subpaths", container, fmt.Sprint(mountIndex))
}

// makeTarget makes a place for a mount. What is there is of an earlier attempt of
// the container, and may show what has been replaced since, or be of another kind.
func makeTarget(target string, dir bool) error {
	if err := detach(target); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if dir {
		return os.Mkdir(target, 0o750)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// detach takes a mount and all below it away, unnoticed by its peers on the host.
func detach(target string) error {
	for {
		mounted, err := isMountPoint(target)
		if err != nil || !mounted {
			return err
		}
		err = unix.Mount("", target, "", unix.MS_PRIVATE|unix.MS_REC, "")
		if err == nil {
			err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// openBeneath opens a path below root and makes the directories that are
// missing. Links count as long as they stay below root: the kernel refuses every
// step that would lead out.
func openBeneath(root, sub string) (int, error) {
	if !filepath.IsLocal(sub) {
		return -1, errors.New("leads out of the volume")
	}
	top, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(top)
	sub = path.Clean(sub)
	fd, err := openat2(top, sub)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := makeBeneath(top, sub); err != nil {
		return -1, err
	}
	return openat2(top, sub)
}

// makeBeneath makes the missing directories of a path.
func makeBeneath(top int, sub string) error {
	var st unix.Stat_t
	if err := unix.Fstat(top, &st); err != nil {
		return err
	}
	parent := "."
	for part := range strings.SplitSeq(sub, "/") {
		if err := makeOne(top, parent, part, st.Mode&0o7777); err != nil {
			return err
		}
		parent = path.Join(parent, part)
	}
	return nil
}

func makeOne(top int, parent, name string, mode uint32) error {
	dir, err := openat2(top, parent)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	made, err := openat2(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(made)
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", made), mode) // whatever the umask says
}

// openat2 opens a path that may not lead out of dir.
func openat2(dir int, name string) (int, error) {
	const tries = 100 // the kernel gives up when somebody renames on the way
	var fd int
	var err error
	for range tries {
		fd, err = unix.Openat2(dir, name, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EXDEV) {
		return -1, errors.New("a symbolic link leads out of the volume")
	}
	return fd, err
}
