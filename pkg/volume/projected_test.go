package volume

import (
	"context"
	"fmt"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// server is an API server with a token, a bundle and, unless nil, a claim.
type server struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
	labels map[string]string
	asked  int
}

func (s *server) Token(_ context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) ([]byte, error) {
	return fmt.Appendf(nil, "%s for %s", pod.Spec.ServiceAccountName, p.Audience), nil
}

func (s *server) TrustBundle(_ context.Context, _ *corev1.Pod, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	if *p.Name == "none" {
		return nil, fs.ErrNotExist
	}
	return []byte("PEM"), nil
}

func (s *server) Claim(_ context.Context, _ *corev1.Pod, name string) (*corev1.PersistentVolumeClaim, error) {
	s.asked++
	if s.claim == nil || s.claim.Name != name {
		return nil, fmt.Errorf("persistentvolumeclaim %q not found: %w", name, fs.ErrNotExist)
	}
	return s.claim, nil
}

func (s *server) PersistentVolume(context.Context, string) (*corev1.PersistentVolume, error) {
	return s.volume, nil
}

func (s *server) NodeLabels(context.Context) (map[string]string, error) { return s.labels, nil }

func TestToken(t *testing.T) {
	user := func(id int64) *corev1.SecurityContext { return &corev1.SecurityContext{RunAsUser: &id} }
	twoContainers := func(pod *corev1.Pod, a, b *corev1.SecurityContext) {
		pod.Spec.Containers[0].SecurityContext = a
		pod.Spec.InitContainers = []corev1.Container{{Name: "i", SecurityContext: b}}
	}
	cases := map[string]struct {
		reason string
		change func(*corev1.Pod)
		mode   fs.FileMode
		owner  *int64
	}{
		"Anyone":   {"nobody knows who the containers run as", func(*corev1.Pod) {}, 0o644, nil},
		"Group":    {"the group is given the right to read later", func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(5))} }, 0o600, nil},
		"PodUser":  {"all run as the pod's user", func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(7))} }, 0o600, new(int64(7))},
		"SameUser": {"each says the same", func(p *corev1.Pod) { twoContainers(p, user(7), user(7)) }, 0o600, new(int64(7))},
		"Users":    {"they are two", func(p *corev1.Pod) { twoContainers(p, user(7), user(8)) }, 0o644, nil},
		"OneKnown": {"the image says who the other is", func(p *corev1.Pod) { twoContainers(p, user(7), nil) }, 0o644, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set := newSet(t, nil)
			set.Server = &server{}
			pod := basePod()
			pod.Spec.ServiceAccountName = "clerk"
			tc.change(pod)
			got, err := set.payloads(t.Context(), pod, &corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}}},
			}}})
			must(t, err)
			want := map[string]payload{"token": {data: []byte("clerk for vault"), mode: tc.mode, owner: tc.owner}}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(payload{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestTrustBundles(t *testing.T) {
	set := newSet(t, nil)
	set.Server = &server{}
	source := func(name string, optional bool) corev1.VolumeSource {
		return projected(corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: &name, Path: "ca.pem", Optional: &optional}})
	}
	cases := map[string]struct {
		reason   string
		name     string
		optional bool
		want     string
		fails    bool
	}{
		"There":    {"one that is there", "roots", false, "PEM", false},
		"Missing":  {"one that the pod cannot do without", "none", false, "", true},
		"Optional": {"and one that it can: an empty file", "none", true, "", false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := set.payloads(t.Context(), basePod(), &corev1.Volume{Name: "v", VolumeSource: source(tc.name, tc.optional)})
			if (err != nil) != tc.fails || !tc.fails && string(got["ca.pem"].data) != tc.want {
				t.Errorf("%s: got %v, %v", tc.reason, got, err)
			}
		})
	}
}
