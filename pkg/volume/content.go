package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// payload is one file of a volume.
type payload struct {
	data  []byte
	mode  fs.FileMode
	owner *int64 // nil is root
}

// contentKind is the kubelet's word for a kind of volume that is made of files, or
// empty.
func contentKind(v *corev1.Volume) string {
	switch {
	case v.ConfigMap != nil:
		return "configmap"
	case v.Secret != nil:
		return "secret"
	case v.DownwardAPI != nil:
		return "downward-api"
	case v.Projected != nil:
		return "projected"
	default:
		return ""
	}
}

// content makes a volume of files, and says whether they have changed.
func (s *Set) content(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Mounted, bool, error) {
	dir := s.dir(pod.UID, contentKind(v), v.Name)
	m := Mounted{HostPath: dir, ReadOnly: true}
	files, err := s.payloads(ctx, pod, v)
	if err != nil {
		return m, false, err
	}
	if err := mkdirAll(dir); err != nil {
		return m, false, err
	}
	if v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil { // never on disk
		mounted, err := isMountPoint(dir)
		if err != nil {
			return m, false, err
		}
		if !mounted {
			if err := mountTmpfs(dir, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
				return m, false, err
			}
		}
	}
	changed, err := writeAtomically(dir, files, func(path string) error { return ownTree(path, pod) })
	return m, changed, err
}

// hasContent says whether an earlier agent has filled a volume.
func (s *Set) hasContent(dir string) bool {
	current, err := currentOf(dir)
	return err == nil && current != ""
}

func (s *Set) payloads(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (map[string]payload, error) {
	out := map[string]payload{}
	switch {
	case v.ConfigMap != nil:
		c := v.ConfigMap
		return out, s.configMap(ctx, out, pod, c.Name, c.Items, c.DefaultMode, ptr.Deref(c.Optional, false))
	case v.Secret != nil:
		c := v.Secret
		return out, s.secret(ctx, out, pod, c.SecretName, c.Items, c.DefaultMode, ptr.Deref(c.Optional, false))
	case v.DownwardAPI != nil:
		return out, s.downward(out, pod, v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
	}
	for i, source := range v.Projected.Sources {
		var err error
		switch {
		case source.ConfigMap != nil:
			c := source.ConfigMap
			err = s.configMap(ctx, out, pod, c.Name, c.Items, v.Projected.DefaultMode, ptr.Deref(c.Optional, false))
		case source.Secret != nil:
			c := source.Secret
			err = s.secret(ctx, out, pod, c.Name, c.Items, v.Projected.DefaultMode, ptr.Deref(c.Optional, false))
		case source.DownwardAPI != nil:
			err = s.downward(out, pod, source.DownwardAPI.Items, v.Projected.DefaultMode)
		case source.ServiceAccountToken != nil:
			err = s.token(ctx, out, pod, v, source.ServiceAccountToken)
		case source.ClusterTrustBundle != nil:
			err = s.trustBundle(ctx, out, pod, v, source.ClusterTrustBundle)
		default:
			err = errors.New("this kind of source is not supported: use configMap, secret, downwardAPI, serviceAccountToken or clusterTrustBundle")
		}
		if err != nil {
			return nil, fmt.Errorf("source %d: %w", i, err)
		}
	}
	return out, nil
}

func (s *Set) configMap(ctx context.Context, out map[string]payload, pod *corev1.Pod, name string, items []corev1.KeyToPath, mode *int32, optional bool) error {
	cm, err := s.ConfigMap(ctx, pod, name)
	if errors.Is(err, fs.ErrNotExist) && optional {
		return nil
	}
	if err != nil {
		return err
	}
	data := map[string][]byte{}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, cm.BinaryData)
	return project(out, "configmap", name, data, items, mode, optional)
}

func (s *Set) secret(ctx context.Context, out map[string]payload, pod *corev1.Pod, name string, items []corev1.KeyToPath, mode *int32, optional bool) error {
	secret, err := s.Secret(ctx, pod, name)
	if errors.Is(err, fs.ErrNotExist) && optional {
		return nil
	}
	if err != nil {
		return err
	}
	return project(out, "secret", name, secret.Data, items, mode, optional)
}

// project picks keys of an object: all of them, or those that items name.
func project(out map[string]payload, kind, name string, data map[string][]byte, items []corev1.KeyToPath, mode *int32, optional bool) error {
	standard := fs.FileMode(ptr.Deref(mode, 0o644))
	if len(items) == 0 {
		for k, v := range data {
			out[k] = payload{data: v, mode: standard}
		}
		return nil
	}
	for _, item := range items {
		v, found := data[item.Key]
		if !found {
			if optional {
				continue
			}
			return fmt.Errorf("%s %q references non-existent key: %s", kind, name, item.Key)
		}
		m := standard
		if item.Mode != nil {
			m = fs.FileMode(*item.Mode)
		}
		out[path.Clean(item.Path)] = payload{data: v, mode: m}
	}
	return nil
}

func (s *Set) downward(out map[string]payload, pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = FieldValue(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = s.ResourceValue(pod, nil, item.ResourceFieldRef)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", item.Path, err)
		}
		m := fs.FileMode(ptr.Deref(mode, 0o644))
		if item.Mode != nil {
			m = fs.FileMode(*item.Mode)
		}
		out[path.Clean(item.Path)] = payload{data: []byte(value), mode: m}
	}
	return nil
}
