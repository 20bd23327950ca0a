package volume

import (
	"context"
	"errors"
	"io/fs"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// token adds the file of a service account token. It is for the pod alone: with a
// group for the pod's files the group reads it, and when all containers run as one
// user it is that user's.
func (s *Set) token(ctx context.Context, out map[string]payload, pod *corev1.Pod, v *corev1.Volume, p *corev1.ServiceAccountTokenProjection) error {
	if s.Server == nil {
		return errNoServer
	}
	data, err := s.Server.Token(ctx, pod, p)
	if err != nil {
		return err
	}
	f := payload{data: data, mode: fs.FileMode(ptr.Deref(v.Projected.DefaultMode, 0o644)), owner: userOf(pod)}
	if sc := pod.Spec.SecurityContext; f.owner != nil || sc != nil && sc.FSGroup != nil {
		f.mode = 0o600
	}
	out[path.Clean(p.Path)] = f
	return nil
}

// userOf is the user that all containers of a pod run as, or nil when there is no
// single one, or only their images know.
func userOf(pod *corev1.Pod) *int64 {
	var standard, user *int64
	if pod.Spec.SecurityContext != nil {
		standard = pod.Spec.SecurityContext.RunAsUser
	}
	var all []*corev1.SecurityContext
	for i := range pod.Spec.InitContainers {
		all = append(all, pod.Spec.InitContainers[i].SecurityContext)
	}
	for i := range pod.Spec.Containers {
		all = append(all, pod.Spec.Containers[i].SecurityContext)
	}
	for i := range pod.Spec.EphemeralContainers {
		all = append(all, pod.Spec.EphemeralContainers[i].SecurityContext)
	}
	for _, sc := range all {
		this := standard
		if sc != nil && sc.RunAsUser != nil {
			this = sc.RunAsUser
		}
		if this == nil || user != nil && *user != *this {
			return nil
		}
		user = this
	}
	return user
}

// trustBundle adds the file of the certificates that a projection picks. An
// optional one that picks none is an empty file, as in the kubelet.
func (s *Set) trustBundle(ctx context.Context, out map[string]payload, pod *corev1.Pod, v *corev1.Volume, p *corev1.ClusterTrustBundleProjection) error {
	if s.Server == nil {
		return errNoServer
	}
	data, err := s.Server.TrustBundle(ctx, pod, p)
	if err != nil && (!ptr.Deref(p.Optional, false) || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	out[path.Clean(p.Path)] = payload{data: data, mode: fs.FileMode(ptr.Deref(v.Projected.DefaultMode, 0o644))}
	return nil
}
