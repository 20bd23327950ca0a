package cri

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
)

// keepShim keeps the pod's shim, if there is one, until release, which may be
// called more than once.
func (r *Runtime) keepShim(p *podState) (there bool, release func()) {
	p.shim.RLock()
	r.mu.Lock()
	there = p.hasTask()
	r.mu.Unlock()
	if !there {
		p.shim.RUnlock()
		return false, func() {}
	}
	return true, sync.OnceFunc(p.shim.RUnlock)
}

// startShim keeps others from starting or ending the pod's shim until release,
// unless another has started it meanwhile.
func (r *Runtime) startShim(p *podState) (release func()) {
	if there, release := r.keepShim(p); there {
		return release
	}
	p.shim.Lock()
	return p.shim.Unlock
}

// deleteTask makes containerd forget a task that has ended. The last one of a
// pod takes the shim along.
func (r *Runtime) deleteTask(ctx context.Context, p *podState, c *containerState) error {
	p.shim.Lock()
	defer p.shim.Unlock()
	r.mu.Lock()
	has := c.task
	r.mu.Unlock()
	if !has {
		return nil
	}
	if err := r.askDelete(ctx, c.ID); err != nil {
		return fmt.Errorf("delete the task of container %s: %w", c.ID, err)
	}
	r.mu.Lock()
	c.task = false
	r.mu.Unlock()
	return r.tidyShim(p)
}

// hasTask says whether containerd has a task of the pod, and so a shim. The
// caller holds Runtime.mu.
func (p *podState) hasTask() bool {
	there := p.init
	for _, c := range p.containers {
		there = there || c.task
	}
	return there
}

// tidyShim removes the socket of a shim that ends. The shim itself removes only
// one of its first container's name, and answers on this one for as long as it
// takes to end. The caller holds p.shim for writing.
func (r *Runtime) tidyShim(p *podState) error {
	r.mu.Lock()
	there := p.hasTask() || !r.adopted
	r.mu.Unlock()
	if there {
		return nil
	}
	var errs []error
	for _, path := range shimSockets(r.cfg.Address, r.cfg.Namespace, string(p.uid)) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the socket of the shim of pod %s: %w", p.uid, err))
		}
	}
	return errors.Join(errs...)
}

// shimSockets are where the socket of a group's shim may be: in containerd's
// default place, and in that of the embedded one. The name is its alone.
func shimSockets(address, namespace, group string) []string {
	name := fmt.Sprintf("%x", sha256.Sum256([]byte(filepath.Join(address, namespace, group))))
	return []string{filepath.Join("/run/containerd/s", name), filepath.Join(filepath.Dir(address), "s", name)}
}

// askDelete asks until the task is known to be gone: a shim that ends with its
// last task may close the connection before it has answered. containerd clears
// up after such a shim, and knows no task when it is asked again.
func (r *Runtime) askDelete(ctx context.Context, id string) error {
	var err error
	for attempt := range shimAttempts {
		_, err = r.client.TaskService().Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
		err = ignoreNotFound(errgrpc.ToNative(err))
		if err == nil || !shimClosed(err) {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
	return err
}

// shimAttempts is how often a shim is asked that may be ending just now.
const shimAttempts = 4

// shimClosed says whether a shim has ended in the middle of a request. containerd
// passes that on in words only.
func shimClosed(err error) bool { return strings.Contains(err.Error(), "ttrpc: closed") }

// pause is before the attempt after this one; it ends with ctx.
func pause(ctx context.Context, attempt int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(attempt*attempt) * 50 * time.Millisecond):
		return nil
	}
}

// strays are containers that an agent was creating when it was killed: their
// creation was broken off, perhaps after the shim had started and before
// containerd knew it. It is safe for concurrent use.
type strays struct {
	mu         sync.Mutex           // guards all below
	pods       map[string]*podState // by container ID
	containers []*containerState    // without the inits of shared process namespaces
}

// add adds a container; c is nil for the init of a shared process namespace.
func (s *strays) add(p *podState, id string, c *containerState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods == nil {
		s.pods = map[string]*podState{}
	}
	s.pods[id] = p
	if c != nil {
		s.containers = append(s.containers, c)
	}
}

// endStrayShims ends shims that nobody else would: they were started for a stray,
// and no task of their pod is in them. A later task of the pod would have joined.
func (r *Runtime) endStrayShims(found *strays) error {
	suspects := map[string]bool{}
	r.mu.Lock()
	for id, p := range found.pods {
		suspects[id] = !p.hasTask()
	}
	r.mu.Unlock()
	if len(suspects) == 0 {
		return nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range processes {
		cmdline, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if id := shimID(string(cmdline), r.cfg.Namespace); suspects[id] {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			errs = append(errs, err, r.endShim(pid, id))
		}
	}
	return errors.Join(errs...)
}

// endShim kills the shim that was started for a container.
func (r *Runtime) endShim(pid int, id string) error {
	d, err := openDaemon(pid)
	if d == nil || err != nil {
		return err
	}
	// The number may have passed to another process since it was looked up.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || shimID(string(cmdline), r.cfg.Namespace) != id {
		return d.close()
	}
	if err := errors.Join(d.signal(unix.SIGKILL), d.close()); err != nil {
		return fmt.Errorf("end the shim of container %s: %w", id, err)
	}
	r.cfg.Log.Warn("ended a shim that an earlier agent's start had left", "container", id, "pid", pid)
	return nil
}

// shimID is the container for which a process of this command line was started
// as a shim of a containerd namespace; empty means that it was not.
func shimID(cmdline, namespace string) string {
	args := strings.Split(strings.TrimRight(cmdline, "\x00"), "\x00")
	if !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-runc-") {
		return ""
	}
	value := func(flag string) string {
		if i := slices.Index(args, flag); i > 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	if value("-namespace") != namespace {
		return ""
	}
	return value("-id")
}
