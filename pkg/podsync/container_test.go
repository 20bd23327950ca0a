package podsync

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestCheckNonRoot(t *testing.T) {
	cases := map[string]struct {
		reason    string
		pod, own  *bool
		uid       *int64
		imageUser string
		err       string
	}{
		"NoPromise":      {reason: "who promises nothing may be root"},
		"ImageRoot":      {reason: "no user is root", pod: new(true), err: "image will run as root"},
		"ImageZero":      {reason: "0 is root", pod: new(true), imageUser: "0:0", err: "image will run as root"},
		"ImagePadded":    {reason: "however it is written", pod: new(true), imageUser: "000", err: "image will run as root"},
		"ImageUser":      {reason: "a number can be verified", pod: new(true), imageUser: "1000:0"},
		"ImageName":      {reason: "a name cannot", pod: new(true), imageUser: "app", err: "non-numeric user (app)"},
		"ImageTooBig":    {reason: "nor a number that the kernel would cut", pod: new(true), imageUser: "4294967296", err: "out of range"},
		"ImageNegative":  {reason: "nor a negative one", pod: new(true), imageUser: "-1", err: "non-numeric user"},
		"ImageSigned":    {reason: "nor a sign", pod: new(true), imageUser: "+0", err: "non-numeric user"},
		"UIDZero":        {reason: "a user of the spec is checked instead", pod: new(true), uid: new(int64(0)), imageUser: "1000", err: "runAsUser breaks non-root policy"},
		"UID":            {reason: "and believed", pod: new(true), uid: new(int64(5)), imageUser: "root"},
		"ContainerTakes": {reason: "the container may take the promise back", pod: new(true), own: new(false)},
		"ContainerGives": {reason: "or give it", own: new(true), err: "image will run as root"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: tc.pod, RunAsUser: tc.uid}
			c := &pod.Spec.Containers[0]
			c.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: tc.own}
			err := checkNonRoot(pod, c, tc.imageUser)
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: want %q, got %v", tc.reason, tc.err, err)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	volumes := map[string]Mounted{"data": {HostPath: "/v/data"}, "conf": {HostPath: "/v/conf", ReadOnly: true}}
	safe := func(_ context.Context, _ *corev1.Pod, _ string, _ int, volume, sub string) (string, error) {
		if strings.Contains(sub, "..") {
			return "", errors.New("leaves the volume")
		}
		return volume + "@" + sub, nil
	}
	cases := map[string]struct {
		reason string
		mount  corev1.VolumeMount
		want   []cri.Mount
		err    string
	}{
		"Plain":       {reason: "a volume", mount: corev1.VolumeMount{Name: "data", MountPath: "/data"}, want: []cri.Mount{{HostPath: "/v/data", ContainerPath: "/data"}}},
		"Relative":    {reason: "a relative path is below the root", mount: corev1.VolumeMount{Name: "data", MountPath: "a/b/"}, want: []cri.Mount{{HostPath: "/v/data", ContainerPath: "/a/b"}}},
		"ReadOnly":    {reason: "a volume that cannot be written", mount: corev1.VolumeMount{Name: "conf", MountPath: "/c"}, want: []cri.Mount{{HostPath: "/v/conf", ContainerPath: "/c", ReadOnly: true}}},
		"Recursively": {reason: "read-only with all below it", mount: corev1.VolumeMount{Name: "data", MountPath: "/c", ReadOnly: true, RecursiveReadOnly: new(corev1.RecursiveReadOnlyEnabled)}, want: []cri.Mount{{HostPath: "/v/data", ContainerPath: "/c", ReadOnly: true, RecursiveReadOnly: true}}},
		"Propagation": {reason: "propagation is handed on", mount: corev1.VolumeMount{Name: "data", MountPath: "/c", MountPropagation: new(corev1.MountPropagationBidirectional)}, want: []cri.Mount{{HostPath: "/v/data", ContainerPath: "/c", Propagation: corev1.MountPropagationBidirectional}}},
		"SubPath":     {reason: "a part of a volume", mount: corev1.VolumeMount{Name: "data", MountPath: "/c", SubPath: "x"}, want: []cri.Mount{{HostPath: "/v/data@x", ContainerPath: "/c"}}},
		"SubPathExpr": {reason: "named by a variable", mount: corev1.VolumeMount{Name: "data", MountPath: "/c", SubPathExpr: "logs/$(POD)"}, want: []cri.Mount{{HostPath: "/v/data@logs/web", ContainerPath: "/c"}}},
		"ExprUnset":   {reason: "which must be set", mount: corev1.VolumeMount{Name: "data", MountPath: "/c", SubPathExpr: "$(NOPE)"}, err: `missing value for ["NOPE"]`},
		"ExprRooted":  {reason: "and must not lead elsewhere", mount: corev1.VolumeMount{Name: "data", MountPath: "/c", SubPathExpr: "$(ROOT)"}, err: "not relative"},
		"SubPathBad":  {reason: "nor must a subPath", mount: corev1.VolumeMount{Name: "data", MountPath: "/c", SubPath: "../x"}, err: "leaves the volume"},
		"Unknown":     {reason: "a volume that the pod does not have", mount: corev1.VolumeMount{Name: "nope", MountPath: "/c"}, err: `no volume "nope"`},
		"Proc":        {reason: "a volume over /proc would undo the container's confinement", mount: corev1.VolumeMount{Name: "data", MountPath: "/x/../proc/sys"}, err: "cannot be covered"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			c := &pod.Spec.Containers[0]
			c.VolumeMounts = []corev1.VolumeMount{tc.mount}
			vars := environment{values: map[string]string{"POD": "web", "ROOT": "/etc"}}
			got, err := mountsOf(t.Context(), pod, c, volumes, vars, safe)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("%s: want error %q, got %v", tc.reason, tc.err, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if d := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestTerminationLog(t *testing.T) {
	w := &worker{cfg: &Config{RootDir: t.TempDir()}, uid: "uid-web"}
	var back undo
	file, err := w.terminationLog(&corev1.Container{Name: "main", TerminationMessagePath: "/dev/termination-log"}, &back)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o666 || !strings.HasPrefix(file, w.cfg.RootDir+"/pods/uid-web/containers/main/") {
		t.Errorf("any user of the container may write it: %s %v %v", file, info, err)
	}
	if err := back.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a start that fails leaves none behind: %v", err)
	}
}

func TestPortOf(t *testing.T) {
	c := &corev1.Container{Name: "main", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}
	for name, tc := range map[string]struct {
		port intstr.IntOrString
		want int
	}{
		"Number": {intstr.FromInt32(80), 80}, "Name": {intstr.FromString("web"), 8080}, "NumberAsText": {intstr.FromString("81"), 81},
	} {
		if got, err := portOf(tc.port, c); err != nil || got != tc.want {
			t.Errorf("%s: want %d, got %d %v", name, tc.want, got, err)
		}
	}
	if _, err := portOf(intstr.FromString("nope"), c); err == nil {
		t.Error("an unknown name is an error")
	}
}
