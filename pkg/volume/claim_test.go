package volume

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// claimedBy is a server with a claim that is bound to a local volume at path.
func claimedBy(path string) *server {
	return &server{
		labels: map[string]string{"zone": "a"},
		claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "data", UID: "uid-claim"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
		},
		volume: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			ClaimRef:               &corev1.ObjectReference{UID: "uid-claim"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}},
			}}}},
		}},
	}
}

func claimVolume(name string) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}
}

func TestClaimProblems(t *testing.T) {
	const unmounted = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: error processing PVC default/data: "
	cases := map[string]struct {
		reason string
		change func(*server)
		want   string
	}{
		"Missing":  {"there is no such claim", func(s *server) { s.claim = nil }, unmounted + `failed to fetch PVC from API server: persistentvolumeclaim "data" not found`},
		"Pending":  {"nothing is bound to it yet", func(s *server) { s.claim.Status.Phase = corev1.ClaimPending }, unmounted + "PVC is not bound"},
		"Deleting": {"it is on its way out", func(s *server) { s.claim.DeletionTimestamp = &metav1.Time{} }, unmounted + "PVC is being deleted"},
		"Block":    {"a device without a file system", func(s *server) { s.claim.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) }, unmounted + "volumeMode Block is not supported"},
		"Forged":   {"the volume is another claim's", func(s *server) { s.volume.Spec.ClaimRef.UID = "other" }, unmounted + "PV pv is not bound to this claim"},
		"CSI": {"a driver is needed", func(s *server) {
			s.volume.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "disk.example.com"}}
		}, unmounted + "PV pv is of kind csi (disk.example.com), which is not supported"},
		"NFS": {"nor are other kinds known", func(s *server) {
			s.volume.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}
		}, unmounted + "PV pv is of kind nfs, which is not supported"},
		"Elsewhere": {"it is on another node", func(s *server) { s.labels["zone"] = "b" }, `MountVolume.NodeAffinity check failed for volume "pv" : no matching NodeSelectorTerms`},
		"NoPath":    {"the disk is not there", func(s *server) { s.volume.Spec.Local.Path = "/nowhere/at/all" }, `MountVolume.SetUp failed for volume "v" : path "/nowhere/at/all" does not exist`},
		"Relative":  {"nor may it be anywhere", func(s *server) { s.volume.Spec.Local.Path = "etc" }, `path "etc" of local volume "pv" is not absolute`},
		"File":      {"nor be a file", func(s *server) { s.volume.Spec.Local.Path = "/proc/version" }, "is not a directory"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set, s := newSet(t, nil), claimedBy(t.TempDir())
			tc.change(s)
			set.Server = s
			_, err := set.Setup(t.Context(), basePod(claimVolume("data")))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: error is\n%v\nwant\n%s", tc.reason, err, tc.want)
			}
		})
	}
}

func TestEphemeralClaimIsThePodsOwn(t *testing.T) {
	set, s := newSet(t, nil), claimedBy("/nowhere/at/all")
	set.Server = s
	s.claim.Name, s.claim.Namespace = "web-node-v", "default"
	pod := basePod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}})
	if _, err := set.Setup(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "was not created for") {
		t.Errorf("error is %v, want somebody else's claim of that name to be refused", err)
	}
	s.claim.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID, Controller: new(true)}}
	if _, err := set.Setup(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("error is %v, want the pod's own to be taken", err)
	}
}

// TestGiveToGroup uses the group that the test has anyway, so that it needs no right.
func TestGiveToGroup(t *testing.T) {
	dir, outside, group := t.TempDir(), t.TempDir(), os.Getgid()
	writeFile(t, filepath.Join(dir, "sub/file"), "x")
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	must(t, os.Chmod(outside, 0o700))
	must(t, os.Chmod(dir, 0o700))
	give := func(onMismatch bool) {
		t.Helper()
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, giveToGroup(t.Context(), fd, group, onMismatch))
	}
	modes := func() map[string]uint32 {
		out := map[string]uint32{}
		for _, path := range []string{dir, dir + "/sub", dir + "/sub/file", outside} {
			info, err := os.Stat(path)
			must(t, err)
			out[strings.TrimPrefix(path, dir)] = info.Sys().(*syscall.Stat_t).Mode & 0o7777
		}
		return out
	}
	give(false)
	for path, want := range map[string]uint32{"": 0o2770, "/sub": 0o2775, "/sub/file": 0o664, outside: 0o700} {
		if got := modes()[path]; got != want {
			t.Errorf("%q has mode %o, want %o", path, got, want)
		}
	}
	must(t, os.Chmod(dir+"/sub/file", 0o600))
	give(true)
	if got := modes()["/sub/file"]; got != 0o600 {
		t.Errorf("the top is right, but what is in it was changed to %o", got)
	}
	give(false)
	if got := modes()["/sub/file"]; got != 0o660 {
		t.Errorf("it was not changed: %o", got)
	}
}
