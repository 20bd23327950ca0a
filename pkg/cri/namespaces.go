package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// pin is one namespace to create and the file that keeps it.
type pin struct {
	flag int
	name string // as in /proc/<pid>/ns
	path string
}

// pinNamespaces creates new namespaces and keeps each by binding it to its file.
// setup runs inside them.
//
// The work happens on a thread of its own that is never unlocked: the Go runtime
// ends such a thread, so no other goroutine can ever run in these namespaces.
func pinNamespaces(pins []pin, setup func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- pinFromThread(pins, setup)
	}()
	if err := <-done; err != nil {
		return errors.Join(err, unpinNamespaces(pins))
	}
	return nil
}

func pinFromThread(pins []pin, setup func() error) error {
	flags := 0
	for _, p := range pins {
		flags |= p.flag
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("create namespaces: %w", err)
	}
	if err := setup(); err != nil {
		return err
	}
	// /proc/self/ns shows the main thread's namespaces, not this one's.
	own := fmt.Sprintf("/proc/%d/task/%d/ns", os.Getpid(), unix.Gettid())
	for _, p := range pins {
		if err := bindNamespace(filepath.Join(own, p.name), p.path); err != nil {
			return err
		}
	}
	return nil
}

func bindNamespace(from, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("pin namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "none", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin namespace at %s: %w", to, err)
	}
	return nil
}

// unpinNamespaces lets namespaces go; those that are gone already are fine.
func unpinNamespaces(pins []pin) error {
	var errs []error
	for _, p := range pins {
		errs = append(errs, unmountAndRemove(p.path))
	}
	return errors.Join(errs...)
}

func unmountAndRemove(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: not a mount
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pinned says whether path is a namespace that is still kept.
func pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// linkUp brings the loopback interface of the calling thread's network namespace up.
func linkUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// setSysctl writes one sysctl in the calling thread's namespaces.
func setSysctl(name, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s: %w", name, err)
	}
	return nil
}

// bootID tells this boot of the machine from every other.
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot ID: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
