package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// mkdirAll makes a directory that everyone can read, whatever the umask says.
func mkdirAll(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unix.Chmod(dir, 0o755)
}

// ownTree lets the pod's fsGroup read a tree, and its directories hand the group
// on. Only the agent may have access to the tree yet.
func ownTree(dir string, pod *corev1.Pod) error {
	sc := pod.Spec.SecurityContext
	if sc == nil || sc.FSGroup == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return ownOne(path, int(*sc.FSGroup))
	})
}

// ownOne changes one file through a descriptor, so that a link that takes its
// place in between is not followed.
func ownOne(path string, group int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ownFile(fd, path, group, 0o440)
}

// ownFile changes an open file; bits are what the group gets beside the right to
// enter directories.
func ownFile(fd int, path string, group int, bits uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(fd, "", -1, group, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give %s to group %d: %w", path, group, err)
	}
	mode := st.Mode&0o7777 | bits
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return nil
	case unix.S_IFDIR:
		mode |= unix.S_ISGID | 0o110
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

// giveToGroup lets a group write all that is in a volume of the machine. Containers
// may be at work in it: every step is from an open directory to what is in it, no
// link is followed and no other mount entered. The top comes last: whether it is
// right says, with onMismatch, whether all of it is.
func giveToGroup(ctx context.Context, top, group int, onMismatch bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(top, &st); err != nil {
		return err
	}
	const wanted = unix.S_ISGID | 0o770
	if onMismatch && int(st.Gid) == group && st.Mode&wanted == wanted {
		return nil
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", top), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := giveIn(ctx, os.NewFile(uintptr(fd), "."), group); err != nil {
		return err
	}
	return ownFile(top, ".", group, 0o660)
}

// giveIn changes all that is in an open directory, and closes it.
func giveIn(ctx context.Context, dir *os.File, group int) error {
	names, err := dir.Readdirnames(-1)
	errs := []error{err}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		if err := giveAt(ctx, dir, name, group); err != nil && !errors.Is(err, unix.ENOENT) { // it may go meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, dir.Close())...)
}

func giveAt(ctx context.Context, dir *os.File, name string, group int) error {
	sub, err := openDirAt(dir, name)
	switch {
	case err == nil:
		if err := giveIn(ctx, sub, group); err != nil {
			return err
		}
	case errors.Is(err, unix.EXDEV): // another mount
		return nil
	case !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
		return err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ownFile(fd, dir.Name()+"/"+name, group, 0o660)
}
