package qos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// EnsurePod makes the cgroup of a pod, with its limits.
func (t *Tree) EnsurePod(ctx context.Context, pod *corev1.Pod) (PodCgroup, error) {
	t.mu.Lock()
	known, ok := t.pods[pod.UID]
	t.mu.Unlock()
	if ok && t.fs.exists(known.Path) {
		return known, nil
	}
	if !nameable(pod.UID) {
		return PodCgroup{}, fmt.Errorf("cgroup of pod %s/%s: its UID %q names no cgroup; it may not be empty or contain / or _", pod.Namespace, pod.Name, pod.UID)
	}
	n := t.podName(pod)
	res := t.cfg.podResources(pod)
	// Written again by a new agent: the old one may have died in between.
	if err := t.apply(ctx, n, &res, true); err != nil {
		return PodCgroup{}, fmt.Errorf("cgroup of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	cg, err := t.cgroup(n)
	if err != nil {
		return PodCgroup{}, err
	}
	t.mu.Lock()
	t.pods[pod.UID] = cg
	t.mu.Unlock()
	return cg, nil
}

// nameable says whether a UID can be part of a cgroup's name, and read back.
func nameable(uid types.UID) bool { return uid != "" && !strings.ContainsAny(string(uid), "/_") }

func (t *Tree) podName(pod *corev1.Pod) name {
	return t.level(tier(ComputeClass(pod)), "pod"+string(pod.UID))
}

func (t *Tree) cgroup(n name) (PodCgroup, error) {
	dir, err := t.path(n)
	cg := PodCgroup{Path: dir}
	if t.units != nil {
		cg.Unit = n.slice()
	}
	return cg, err
}

// RemovePod kills what is left of a pod and removes its cgroup, wherever in the
// hierarchy it lies. A pod without a cgroup is success.
func (t *Tree) RemovePod(ctx context.Context, uid types.UID) error {
	if !nameable(uid) {
		return nil // EnsurePod has made none; such a name could lead anywhere
	}
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		n := t.level(tier(class), "pod"+string(uid))
		dir, err := t.path(n)
		if err != nil {
			return err
		}
		if !t.fs.anywhere(dir) {
			continue
		}
		if err := t.removeCgroup(ctx, n, dir); err != nil {
			return fmt.Errorf("remove the cgroup of pod %s: %w", uid, err)
		}
	}
	t.mu.Lock()
	delete(t.pods, uid)
	t.mu.Unlock()
	return nil
}

func (t *Tree) removeCgroup(ctx context.Context, n name, dir string) error {
	if t.units != nil {
		// First the processes: systemd would ask them politely, and wait for those
		// that do not listen.
		if err := t.fs.kill(ctx, dir); err != nil {
			return err
		}
		if err := t.units.stop(ctx, n.slice()); err != nil {
			return err
		}
	}
	t.mu.Lock()
	delete(t.unknown, dir)
	t.mu.Unlock()
	return t.fs.remove(ctx, dir)
}

// Pods lists the pods that have a cgroup.
func (t *Tree) Pods(_ context.Context) ([]types.UID, error) {
	var out []types.UID
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		dir, err := t.path(t.level(tier(class)))
		if err != nil {
			return nil, err
		}
		for _, d := range t.fs.dirs(dir) {
			entries, err := os.ReadDir(d)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list pod cgroups: %w", err)
			}
			for _, e := range entries {
				uid, isPod := podUID(e.Name(), t.units != nil)
				if e.IsDir() && isPod && !slices.Contains(out, uid) {
					out = append(out, uid)
				}
			}
		}
	}
	return out, nil
}

// RemoveRoot removes the hierarchy with every pod in it, for good.
func (t *Tree) RemoveRoot(ctx context.Context) error {
	root, err := t.path(t.level())
	if err != nil {
		return err
	}
	if err := t.fs.foreign(root); err != nil {
		return err
	}
	pods, err := t.Pods(ctx)
	if err != nil {
		return err
	}
	for _, uid := range pods {
		if err := t.RemovePod(ctx, uid); err != nil {
			return err
		}
	}
	levels := []name{t.level("burstable"), t.level("besteffort"), t.level()}
	if t.cfg.OwnRoot && len(t.root) > 0 {
		levels = append(levels, t.root)
	}
	for _, n := range levels {
		dir, err := t.path(n)
		if err != nil {
			return err
		}
		if !t.fs.anywhere(dir) {
			continue
		}
		if err := t.removeCgroup(ctx, n, dir); err != nil {
			return err
		}
	}
	return nil
}
