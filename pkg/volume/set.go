package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const supported = "use emptyDir, hostPath, configMap, secret, downwardAPI, projected, ephemeral or persistentVolumeClaim"

var errNoServer = errors.New("needs an API server, which this pod does not have")

// Set is the volumes of all pods. Its fields are set once; its methods are safe
// for concurrent use on different pods.
type Set struct {
	RootDir string
	// ConfigMap and Secret find objects for a pod; a missing one matches fs.ErrNotExist.
	ConfigMap func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error)
	Secret    func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error)
	// Server is asked for what only an API server has; nil without one.
	Server Server
	// NodeAllocatable answers resource fields of containers without a limit.
	NodeAllocatable corev1.ResourceList
	// OnHost calls a func with the machine's own view of its files, for an agent that
	// lives in a container. Nil is for one that has that view anyway.
	OnHost func(func() error) error
	Log    *slog.Logger
}

// Server has what pods of an API server refer to. What is missing matches
// fs.ErrNotExist.
type Server interface {
	// Token is a fresh token of the pod's service account.
	Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) ([]byte, error)
	TrustBundle(ctx context.Context, pod *corev1.Pod, p *corev1.ClusterTrustBundleProjection) ([]byte, error)
	Claim(ctx context.Context, pod *corev1.Pod, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	NodeLabels(ctx context.Context) (map[string]string, error)
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
		m, err := s.setUp(ctx, pod, v)
		if err != nil {
			return nil, named(v.Name, err)
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
			return nil, fmt.Errorf("volume %q: %w", v.Name, errKind(v))
		}
	}
	return out, nil
}

// named says which volume an error is about, unless it does so itself.
func named(volume string, err error) error {
	if e := (*claimError)(nil); errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", volume, err)
}

// kinds names the kind of a volume as manifests do.
func kindOf(v *corev1.Volume) string {
	source := reflect.ValueOf(v.VolumeSource)
	for i := range source.NumField() {
		if !source.Field(i).IsNil() {
			name, _, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "unknown"
}

func errKind(v *corev1.Volume) error {
	return fmt.Errorf("volumes of kind %s are not supported: %s", kindOf(v), supported)
}

func (s *Set) setUp(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Mounted, error) {
	switch {
	case v.EmptyDir != nil:
		return s.emptyDir(pod, v)
	case v.HostPath != nil:
		return s.hostPath(v.HostPath)
	case contentKind(v) != "":
		m, _, err := s.content(ctx, pod, v)
		if err != nil && ctx.Err() == nil && s.hasContent(m.HostPath) {
			// An agent that starts while the API server is away: the pod goes on with
			// what it had.
			s.Log.Warn("contents of a volume are left as they were", "pod", pod.Name, "uid", pod.UID, "volume", v.Name, "err", err)
			return m, nil
		}
		return m, err
	case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
		return s.claimed(ctx, pod, v)
	default:
		return Mounted{}, errKind(v)
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
		_, again, err := s.content(ctx, pod, v)
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
