package cri

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/sys"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

const (
	// idRange is how many user and group IDs a pod with a user namespace has.
	idRange = 65536
	// maxIDRanges is how many such pods there can be; the first range is the host's.
	maxIDRanges = 1<<15 - 1
)

// ownUsers says whether a pod wants a user namespace of its own.
func ownUsers(pod *corev1.Pod) bool { return !ptr.Deref(pod.Spec.HostUsers, true) }

// takeIDs finds a range of host IDs that no other pod has, notes it for the pod,
// and returns its first.
func (r *Runtime) takeIDs(uid types.UID) (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := map[uint32]bool{}
	for _, p := range r.pods {
		if p.sandbox != nil {
			used[p.sandbox.HostID] = true
		}
		used[p.hostID] = true
	}
	for i := uint32(1); i <= maxIDRanges; i++ {
		if first := i * idRange; !used[first] {
			r.pods[uid].hostID = first
			return first, nil
		}
	}
	return 0, errors.New("all ranges of user IDs are taken")
}

// idMappings map a sandbox's IDs to the host's; nil means that they are the same.
func idMappings(s *Sandbox) []specs.LinuxIDMapping {
	if s.HostID == 0 {
		return nil
	}
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.HostID, Size: idRange}}
}

// snapshotOwner makes a snapshot appear as owned by the sandbox's IDs.
func snapshotOwner(s *Sandbox) []snapshots.Opt {
	if s.HostID == 0 {
		return nil
	}
	return []snapshots.Opt{containerd.WithRemapperLabels(0, s.HostID, 0, s.HostID, idRange)}
}

// pinWithUsers is pinNamespaces inside a new user namespace, which then owns the
// others: without that the pod would have no power over its own network.
func pinWithUsers(pins []pin, hostID uint32, setup func() error) error {
	flags := 0
	for _, p := range pins {
		if p.flag != unix.CLONE_NEWUSER {
			flags |= p.flag
		}
	}
	mapping := fmt.Sprintf("0:%d:%d", hostID, idRange)
	err := sys.UnshareAfterEnterUserns(mapping, mapping, uintptr(flags), func(pid int) error {
		for _, p := range pins {
			if err := bindNamespace(fmt.Sprintf("/proc/%d/ns/%s", pid, p.name), p.path); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("create a user namespace (hostUsers: false needs a kernel with user namespaces and pidfd): %w", err)
	} else {
		err = insidePins(pins, setup)
	}
	if err != nil {
		return errors.Join(err, unpinNamespaces(pins))
	}
	return nil
}

// insidePins runs f on a thread in pinned namespaces; the thread ends with it.
func insidePins(pins []pin, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		for _, p := range pins {
			if p.flag == unix.CLONE_NEWUSER {
				continue // a process with several threads cannot enter one, and need not
			}
			if err := enter(p); err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	return <-done
}

func enter(p pin) error {
	fd, err := unix.Open(p.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(p.path), err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, p.flag); err != nil {
		return fmt.Errorf("enter %s namespace: %w", p.name, err)
	}
	return nil
}
