package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

var errKind = errors.New("this kind of volume is not supported: use emptyDir, hostPath, configMap, secret, downwardAPI or projected")

// Set is the volumes of all pods. Its fields are set once; its methods are safe
// for concurrent use on different pods.
type Set struct {
	RootDir string
	// ConfigMap and Secret find objects; a missing one matches fs.ErrNotExist.
	ConfigMap func(namespace, name string) (*corev1.ConfigMap, error)
	Secret    func(namespace, name string) (*corev1.Secret, error)
	// NodeAllocatable answers resource fields of containers without a limit.
	NodeAllocatable corev1.ResourceList
	Log             *slog.Logger
}

// Mounted is a volume on this node.
type Mounted = struct {
	HostPath string
	ReadOnly bool
}

func (s *Set) podDir(uid types.UID) string { return filepath.Join(s.RootDir, "pods", string(uid)) }

// dir is a volume's directory, named as by the kubelet.
func (s *Set) dir(uid types.UID, kind, name string) string {
	return filepath.Join(s.podDir(uid), "volumes", "kubernetes.io~"+kind, name)
}

// Setup makes every volume of pod and returns them by name. It can be repeated.
// Its error names the volume.
func (s *Set) Setup(ctx context.Context, pod *corev1.Pod) (map[string]Mounted, error) {
	if err := os.MkdirAll(filepath.Join(s.podDir(pod.UID), "volumes"), 0o750); err != nil {
		return nil, err
	}
	out := map[string]Mounted{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, err := s.setUp(pod, v)
		if err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		out[v.Name] = m
	}
	return out, nil
}

// Plan is where Setup would make the volumes of pod.
func (s *Set) Plan(pod *corev1.Pod) (map[string]Mounted, error) {
	out := map[string]Mounted{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch kind := contentKind(v); {
		case kind != "":
			out[v.Name] = Mounted{HostPath: s.dir(pod.UID, kind, v.Name), ReadOnly: true}
		case v.HostPath != nil:
			out[v.Name] = Mounted{HostPath: v.HostPath.Path}
		case v.EmptyDir != nil:
			out[v.Name] = Mounted{HostPath: s.dir(pod.UID, "empty-dir", v.Name)}
		default:
			return nil, fmt.Errorf("volume %q: %w", v.Name, errKind)
		}
	}
	return out, nil
}

func (s *Set) setUp(pod *corev1.Pod, v *corev1.Volume) (Mounted, error) {
	switch {
	case v.EmptyDir != nil:
		return s.emptyDir(pod, v)
	case v.HostPath != nil:
		return hostPath(v.HostPath)
	case contentKind(v) != "":
		m, _, err := s.content(pod, v)
		return m, err
	default:
		return Mounted{}, errKind
	}
}

// Update brings the contents of configMap, secret, downwardAPI and projected
// volumes up to date.
func (s *Set) Update(ctx context.Context, pod *corev1.Pod) (changed bool, err error) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if contentKind(v) == "" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		_, again, err := s.content(pod, v)
		if err != nil {
			return changed, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		changed = changed || again
	}
	return changed, nil
}

// Teardown unmounts and removes everything of a pod. A pod that has nothing is
// success.
func (s *Set) Teardown(ctx context.Context, uid types.UID) error {
	dir := s.podDir(uid)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unmountBelow(ctx, dir); err != nil {
		return fmt.Errorf("volumes of pod %s: %w", uid, err)
	}
	if err := removeAll(dir); err != nil {
		return fmt.Errorf("volumes of pod %s: %w", uid, err)
	}
	return nil
}
