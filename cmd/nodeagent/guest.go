package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
)

func isGuest(cfg config.Config) bool { return cfg.Agent.Profile == config.ProfileGuest }

// capacity is what this node has of its machine, where that is not everything.
func capacity(cfg config.Config) map[corev1.ResourceName]string {
	out := map[corev1.ResourceName]string{}
	for r, part := range cfg.Agent.Capacity {
		out[corev1.ResourceName(r)] = part
	}
	return out
}

// hostView is how parts of the agent see the machine's files as the machine does;
// nil when they do anyway. A guest lives in a container that has few of them.
func hostView(cfg config.Config) func(func() error) error {
	if !isGuest(cfg) {
		return nil
	}
	return onHost
}

// onHost calls f on a thread in the mount namespace of the machine's init, and
// starts there what f starts. The thread is never unlocked and so ends with f: no
// other goroutine can get into that namespace.
func onHost(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := enterHost()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func enterHost() error {
	const of = "/proc/1/ns/mnt"
	fd, err := unix.Open(of, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the machine's mount namespace, %s (a guest's pod needs hostPID and privileged): %w", of, err)
	}
	defer unix.Close(fd)
	// Root and working directory are shared with the other threads until then.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the agent's root directory: %w", err)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the machine's mount namespace: %w", err)
	}
	return nil
}

// runcBinary is the path of runc, empty where containerd's shim is to look it up:
// on a guest's machine it is not among the files that the guest sees.
func (a *agent) runcBinary() (string, error) {
	path, err := cri.LookBinary("runc", a.cfg.Agent.RuntimeBinDirs)
	if err != nil && isGuest(a.cfg) {
		return "", nil
	}
	return path, err
}

// shelterTimeout bounds how long a process may take to get a cgroup of its own.
const shelterTimeout = 30 * time.Second

// lasting is this program's file, and how to start it so that it outlives the
// agent. A guest ends with its pod: all processes of the container are killed, and
// its files go. What is to stay runs from the machine's disk, in the machine's
// mount namespace and in a cgroup beside the pods'.
func (a *agent) lasting() (self string, start func(*exec.Cmd) error, err error) {
	if self, err = os.Executable(); err != nil || !isGuest(a.cfg) {
		return self, nil, err
	}
	installed := filepath.Join(a.cfg.Agent.RootDir, "bin", "nodeagent")
	if err := install(self, installed); err != nil {
		return "", nil, fmt.Errorf("copy the agent to the machine: %w", err)
	}
	return installed, func(cmd *exec.Cmd) error {
		if err := onHost(cmd.Start); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), shelterTimeout)
		defer cancel()
		if err := a.tree.Shelter(ctx, "holder", cmd.Process.Pid); err != nil {
			return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
		return nil
	}, nil
}

// install copies a program unless it is there already. Processes that run the old
// one keep it.
func install(from, to string) error {
	same, err := sameFile(from, to)
	if err != nil || same {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	if err = errors.Join(err, target.Close()); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// sameFile compares the contents of two files; one that is missing is another.
func sameFile(a, b string) (bool, error) {
	infoA, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	infoB, err := os.Stat(b)
	if errors.Is(err, fs.ErrNotExist) || err == nil && infoA.Size() != infoB.Size() {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return sameContent(a, b)
}

func sameContent(a, b string) (bool, error) {
	fileA, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fileA.Close()
	fileB, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fileB.Close()
	// A piece at a time: the whole is more than the agent needs for anything else.
	pieceA, pieceB := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(fileA, pieceA)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		if _, err := io.ReadFull(fileB, pieceB[:n]); err != nil || !bytes.Equal(pieceA[:n], pieceB[:n]) {
			return false, err
		}
	}
}
