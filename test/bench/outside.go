package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// networks is where containerd's CRI caches what CNI plugins answered, whatever
// it is configured to do.
const networks = "/var/lib/cni"

// outside runs the bench once more in namespaces of its own and removes what is
// left on the machine when that has ended: a directory and cgroups.
func outside(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done after %s", o.limit))
	defer cancel()
	if os.Geteuid() != 0 {
		return errors.New("containers, cgroups and networks need root")
	}
	dir, err := os.MkdirTemp("", "nb")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cgroup := filepath.Base(dir)
	defer func() { err = errors.Join(err, removeCgroups(cgroup)) }()
	if err := makeCgroups(cgroup); err != nil {
		return err
	}
	if err := os.Mkdir(networks, 0o755); err == nil {
		defer func() { _ = os.Remove(networks) }() // stays if others use it by now
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	self := exec.CommandContext(ctx, "/proc/self/exe", append(os.Args[1:], "-dir", dir)...)
	self.Stdout, self.Stderr = os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Setpgid:    true, // an interrupt from the terminal comes to us alone
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := self.Run(); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return nil
}

// reap is the init of the PID namespace: the kernel ends all that is in it when
// init returns. Until then init takes in the orphans, such as shims.
func reap() error {
	signal.Ignore(syscall.SIGPIPE)
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return err
		case pid == child.Pid && status.Exited():
			os.Exit(status.ExitStatus()) // it has said why
		case pid == child.Pid:
			return fmt.Errorf("the bench ended with %s", status.Signal())
		}
	}
}

// settleIn makes the namespaces a place of their own: what programs insist on
// writing outside of the bench's directory falls on file systems that end with it.
func settleIn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/var/log", networks} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount over %s: %w", dir, err)
		}
	}
	for _, sysctl := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"} { // off in a new namespace
		if err := os.WriteFile("/proc/sys/"+sysctl, []byte("1"), 0); err != nil {
			return err
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up lo: %w: %s", err, out)
	}
	return nil
}

// cgroupDirs are the directories of a cgroup, one for each v1 controller or one
// on v2.
func cgroupDirs(name string) ([]string, error) {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return []string{filepath.Join(root, name)}, nil
	}
	mounts, err := filepath.Glob(root + "/*/cgroup.procs")
	var dirs []string
	for _, m := range mounts {
		dirs = append(dirs, filepath.Join(filepath.Dir(m), name))
	}
	return dirs, err
}

func makeCgroups(name string) error {
	dirs, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 leaves them empty, and the cgroup unusable
			parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), parent, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroups removes a cgroup and all below it. Its processes have been killed
// and may need a moment to be gone.
func removeCgroups(name string) error {
	roots, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { // what cannot be read cannot be removed either
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			err := unix.Rmdir(dir)
			for range 100 {
				if !errors.Is(err, unix.EBUSY) {
					break
				}
				time.Sleep(20 * time.Millisecond)
				err = unix.Rmdir(dir)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}
