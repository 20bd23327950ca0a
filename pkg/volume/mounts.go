package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
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
		mounts, listErr := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if listErr != nil {
			return fmt.Errorf("list mounts: %w", listErr)
		}
		if len(mounts) == 0 {
			return nil
		}
		if err = unmountAll(mounts); err == nil {
			continue // several may lie on one place
		}
		select { // a process that is ending still holds it
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(unmountDelay):
		}
	}
	return errors.Join(fmt.Errorf("mounts are left below %s", dir), err)
}

// unmountAll unmounts without others noticing. Where the host's mounts are shared,
// as systemd makes them, a bind mount of a host's directory is their peer: to
// unmount what lies in it would unmount the same on the host.
func unmountAll(mounts []*mountinfo.Info) error {
	slices.SortFunc(mounts, func(a, b *mountinfo.Info) int { return len(b.Mountpoint) - len(a.Mountpoint) })
	var errs []error
	for _, m := range mounts {
		errs = append(errs, ignoreGone(unix.Mount("", m.Mountpoint, "", unix.MS_PRIVATE, "")))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := ignoreGone(unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW)); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}

// ignoreGone takes a mount that has gone meanwhile for unmounted.
func ignoreGone(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// removeAll removes a directory and all in it. It descends by open directories,
// and the kernel refuses each step into another mount: there it stops.
func removeAll(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := removeIn(os.NewFile(uintptr(fd), dir)); err != nil {
		return err
	}
	return os.Remove(dir)
}

// removeIn empties an open directory and closes it.
func removeIn(dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, removeAt(dir, name))
	}
	return errors.Join(append(errs, dir.Close())...)
}

func removeAt(dir *os.File, name string) error {
	path := dir.Name() + "/" + name
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	sub, err := openDirAt(dir, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%s is a mount: not removed", path)
	case err != nil:
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := removeIn(sub); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// openDirAt opens a directory in another one, but no mount and through no link.
func openDirAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}
