package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/utils/ptr"
)

// claimError is why a claimed volume is not there, in the kubelet's words, which
// name the volume.
type claimError struct{ err error }

func (e *claimError) Error() string { return e.err.Error() }
func (e *claimError) Unwrap() error { return e.err }

// claimed is a volume that a claim is bound to, bound to a place of the pod's own.
// That it is there is all that a new agent must know: nobody is asked again, and
// the claim may be on its way out by then.
func (s *Set) claimed(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (Mounted, error) {
	target := s.dir(pod.UID, "local-volume", v.Name)
	out := Mounted{HostPath: target, ReadOnly: v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly}
	if mounted, err := isMountPoint(target); mounted || err != nil {
		return out, err
	}
	if s.Server == nil {
		return out, errNoServer
	}
	pv, err := s.boundTo(ctx, pod, v)
	if err != nil {
		return out, &claimError{fmt.Errorf("Unable to attach or mount volumes: unmounted volumes=[%s], unattached volumes=[], failed to process volumes=[%s]: %w", v.Name, v.Name, err)} //nolint:staticcheck // the kubelet's words, which tools look for
	}
	if err := s.checkAffinity(ctx, pv); err != nil {
		return out, &claimError{fmt.Errorf("MountVolume.NodeAffinity check failed for volume %q : %w", pv.Name, err)}
	}
	fd, err := openVolume(pv)
	if err != nil {
		return out, err
	}
	defer unix.Close(fd)
	if sc := pod.Spec.SecurityContext; pv.Spec.Local != nil && !out.ReadOnly && sc != nil && sc.FSGroup != nil {
		onMismatch := ptr.Deref(sc.FSGroupChangePolicy, corev1.FSGroupChangeAlways) == corev1.FSGroupChangeOnRootMismatch
		if err := giveToGroup(ctx, fd, int(*sc.FSGroup), onMismatch); err != nil {
			return out, fmt.Errorf("persistent volume %q: %w", pv.Name, err)
		}
	}
	return out, bind(fd, target)
}

// boundTo is the volume that a pod's claim is bound to.
func (s *Set) boundTo(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (*corev1.PersistentVolume, error) {
	name := ephemeral.VolumeClaimName(pod, v)
	if v.PersistentVolumeClaim != nil {
		name = v.PersistentVolumeClaim.ClaimName
	}
	fail := func(err error) error { return fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err) }
	claim, err := s.Server.Claim(ctx, pod, name)
	switch {
	case err != nil:
		return nil, fail(fmt.Errorf("failed to fetch PVC from API server: %w", err))
	case v.Ephemeral != nil && ephemeral.VolumeIsForPod(pod, claim) != nil:
		return nil, fail(ephemeral.VolumeIsForPod(pod, claim))
	case claim.DeletionTimestamp != nil:
		return nil, fail(errors.New("PVC is being deleted"))
	case claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "":
		return nil, fail(errors.New("PVC is not bound"))
	case ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) != corev1.PersistentVolumeFilesystem:
		return nil, fail(errors.New("volumeMode Block is not supported: use a claim with volumeMode Filesystem"))
	}
	pv, err := s.Server.PersistentVolume(ctx, claim.Spec.VolumeName)
	switch {
	case err != nil:
		return nil, fail(fmt.Errorf("failed to fetch PV %s from API server: %w", claim.Spec.VolumeName, err))
	case pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID:
		return nil, fail(fmt.Errorf("PV %s is not bound to this claim", pv.Name))
	case pv.Spec.HostPath == nil && pv.Spec.Local == nil:
		return nil, fail(fmt.Errorf("PV %s is of kind %s, which is not supported: use a hostPath or local volume", pv.Name, kindOfPV(pv)))
	}
	return pv, nil
}

// kindOfPV names the kind of a persistent volume as manifests do.
func kindOfPV(pv *corev1.PersistentVolume) string {
	source := reflect.ValueOf(pv.Spec.PersistentVolumeSource)
	for i := range source.NumField() {
		if !source.Field(i).IsNil() {
			name, _, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
			if pv.Spec.CSI != nil {
				return name + " (" + pv.Spec.CSI.Driver + ")"
			}
			return name
		}
	}
	return "unknown"
}

// checkAffinity says whether a volume may be used on this node.
func (s *Set) checkAffinity(ctx context.Context, pv *corev1.PersistentVolume) error {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	labels, err := s.Server.NodeLabels(ctx)
	if err != nil {
		return err
	}
	selector, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	if err != nil {
		return err
	}
	if !selector.Match(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}}) {
		return errors.New("no matching NodeSelectorTerms")
	}
	return nil
}

// openVolume opens the place of a volume on this machine.
func openVolume(pv *corev1.PersistentVolume) (int, error) {
	path := ""
	if pv.Spec.HostPath != nil {
		m, err := hostPath(pv.Spec.HostPath)
		if err != nil {
			return -1, err
		}
		path = m.HostPath
	} else if path = pv.Spec.Local.Path; !filepath.IsAbs(path) {
		return -1, fmt.Errorf("path %q of local volume %q is not absolute", path, pv.Name)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("path %q does not exist", path)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && pv.Spec.Local != nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = fmt.Errorf("path %q of local volume %q is not a directory: block devices are not supported", path, pv.Name)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// bind shows an open file or directory at target, which is no mount yet.
func bind(fd int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind volume: %w", err)
	}
	return nil
}
