package podsync

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// reasonConfig is why a container is not created whose configuration is wrong or
// refers to something that is not there (yet).
const reasonConfig = "CreateContainerConfigError"

// startContainer runs the next attempt of a container.
func (w *worker) startContainer(ctx context.Context, s StartContainer) error {
	pod := w.withAddresses()
	c := specOf(pod, s.Container)
	w.mu.Lock()
	w.rec.Series[s.Container] = s.Series
	w.dirty = true
	w.mu.Unlock()

	var undo undo
	cfg, err := w.containerConfig(ctx, pod, c, s, &undo)
	if err != nil {
		err = &cri.StartError{Reason: reasonConfig, Err: err}
	}
	var started cri.Container
	if err == nil {
		started, err = w.runContainer(ctx, cfg)
	}
	if err != nil {
		if ctx.Err() == nil {
			w.warnOf(c.Name, "Failed", "Error: %v", err)
		}
		if started.ID == "" { // else the attempt is on record, and what it used with it
			err = errors.Join(err, undo.run(ctx))
		}
		return err
	}
	w.noteOf(c.Name, "Created", "Created container: %s", c.Name)
	w.noteOf(c.Name, "Started", "Started container %s", c.Name)
	return nil
}

// lingerFor bounds how long a container that is being started holds up the end
// of its pod, or of the agent. A process that containerd is creating by then is
// the runtime's to finish.
const lingerFor = 10 * time.Second

// runContainer waits for its turn and then starts the container, come what may:
// a start that is broken off in the middle would look like one that failed.
func (w *worker) runContainer(ctx context.Context, cfg cri.ContainerConfig) (cri.Container, error) {
	begin := time.Now()
	release, err := w.cfg.containers.acquire(ctx)
	if err != nil {
		return cri.Container{}, err
	}
	defer release()
	w.log.Debug("turn has come", "step", holdKey(StartContainer{Container: cfg.Container.Name}), "took", time.Since(begin))
	ctx, cancel := linger(ctx, lingerFor)
	defer cancel()
	return w.cfg.Runtime.StartContainer(ctx, cfg)
}

// linger is a context that ends a while after ctx has.
func linger(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(d):
			cancel()
		case <-out.Done():
		}
	})
	return out, func() { stop(); cancel() }
}

// slots bounds how much goes on at once.
type slots chan struct{}

func (s slots) acquire(ctx context.Context) (release func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// withAddresses is the pod with the addresses that fieldRefs may ask for.
func (w *worker) withAddresses() *corev1.Pod {
	observed, _ := w.cfg.Runtime.Pod(w.uid)
	pod := w.view()
	setAddresses(&pod.Status, pod, Have{Pod: observed, NodeIPs: w.cfg.NodeIPs}, pod.Status)
	return pod
}

// containerConfig computes all that the runtime must know. undo gets what was
// made on the way.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *corev1.Container, s StartContainer, undo *undo) (cri.ContainerConfig, error) {
	w.mu.Lock()
	image, volumes, cgroup := w.facts.images[c.Name].image, w.facts.volumes, *w.facts.cgroup
	w.mu.Unlock()
	if err := checkNonRoot(pod, c, image.Config.User); err != nil {
		return cri.ContainerConfig{}, err
	}
	vars, skipped, err := env(ctx, pod, c, w.cfg.Lookups)
	if err != nil {
		return cri.ContainerConfig{}, err
	}
	for _, text := range skipped {
		w.warn("InvalidEnvironmentVariableNames", "%s", text)
	}
	mounts, err := mountsOf(ctx, pod, c, volumes, vars, w.cfg.Volumes.SubPath)
	if err != nil {
		return cri.ContainerConfig{}, err
	}
	log, err := w.terminationLog(c, undo)
	if err != nil {
		return cri.ContainerConfig{}, err
	}
	target, err := w.targetOf(pod, c.Name)
	if err != nil {
		return cri.ContainerConfig{}, err
	}
	limits := w.cfg.Cgroups.Container(pod, c)
	return cri.ContainerConfig{
		Pod: pod, Container: c, Attempt: s.Attempt, SpecHash: s.Origin, Image: image,
		Command: expandAll(c.Command, vars.lookup), Args: expandAll(c.Args, vars.lookup), Env: vars.list(),
		Mounts: mounts, CgroupsPath: cgroup.ContainerPath, Resources: limits.Linux, OOMScoreAdj: limits.OOMScoreAdj,
		TerminationLog: log, Target: target, SeccompDefault: w.cfg.SeccompDefault,
	}, nil
}

// targetOf is the ID of the container whose processes an ephemeral container is
// to see, or empty.
func (w *worker) targetOf(pod *corev1.Pod, name string) (string, error) {
	e := ephemeralOf(pod, name)
	if e == nil || e.TargetContainerName == "" {
		return "", nil
	}
	observed, _ := w.cfg.Runtime.Pod(w.uid)
	a := observed.Container(e.TargetContainerName)
	if a == nil || a.State != cri.Running {
		return "", fmt.Errorf("target container %s is not running", e.TargetContainerName)
	}
	return a.ID, nil
}

// terminationLog makes the file in which a container may leave its last words.
// Any user of the container may write it, hence its mode.
func (w *worker) terminationLog(c *corev1.Container, undo *undo) (string, error) {
	if c.TerminationMessagePath == "" {
		return "", nil
	}
	dir := podDir(w.cfg.RootDir, w.uid, "containers", c.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make directory for termination log: %w", err)
	}
	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	file := filepath.Join(dir, hex.EncodeToString(random[:]))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return "", fmt.Errorf("make termination log: %w", err)
	}
	*undo = append(*undo, func(context.Context) error { return os.Remove(file) })
	return file, errors.Join(f.Chmod(0o666), f.Close()) // the mode must not depend on the umask
}

type subPathFunc func(ctx context.Context, pod *corev1.Pod, container string, mountIndex int, volumeHostPath, subPath string) (string, error)

// mountsOf turns a container's volumeMounts into mounts of this node.
func mountsOf(ctx context.Context, pod *corev1.Pod, c *corev1.Container, volumes map[string]Mounted, vars environment, safe subPathFunc) ([]cri.Mount, error) {
	var mounts []cri.Mount
	for i, m := range c.VolumeMounts {
		v, ok := volumes[m.Name]
		if !ok {
			return nil, fmt.Errorf("mount %s: the pod has no volume %q", m.MountPath, m.Name)
		}
		target := path.Clean("/" + m.MountPath)
		if target == "/" || target == "/proc" || strings.HasPrefix(target, "/proc/") {
			return nil, fmt.Errorf("mount volume %s: %s cannot be covered by a volume", m.Name, target)
		}
		source := v.HostPath
		sub, err := subPathOf(m, vars)
		if err == nil && sub != "" {
			source, err = safe(ctx, pod, c.Name, i, v.HostPath, sub)
		}
		if err != nil {
			return nil, fmt.Errorf("prepare subPath of volumeMount %q of container %q: %w", m.Name, c.Name, err)
		}
		mount := cri.Mount{
			HostPath: source, ContainerPath: target, ReadOnly: m.ReadOnly || v.ReadOnly,
			RecursiveReadOnly: m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled,
		}
		if m.MountPropagation != nil {
			mount.Propagation = *m.MountPropagation
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

// subPathOf is the path inside the volume. Unlike in commands, a variable that is
// not set is an error here: the wrong directory would be mounted.
func subPathOf(m corev1.VolumeMount, vars environment) (string, error) {
	if m.SubPathExpr == "" {
		return m.SubPath, nil
	}
	var missing []string
	sub := expand(m.SubPathExpr, func(name string) (string, bool) {
		v, ok := vars.lookup(name)
		if !ok {
			missing = append(missing, name)
		}
		return v, ok
	})
	switch {
	case len(missing) > 0:
		return "", fmt.Errorf("missing value for %q", missing)
	case filepath.IsAbs(sub):
		return "", fmt.Errorf("%q is not relative", sub)
	default:
		return sub, nil
	}
}
