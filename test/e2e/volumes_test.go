//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestServiceAccountVolume is what every pod has: with it the API server can be
// spoken to, and knows for which pod.
func TestServiceAccountVolume(t *testing.T) {
	s := newSpace(t)
	pod := s.create(newPod("web", forever, func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1000)), FSGroup: new(int64(2000))}
	}, mount("vault", "/vault", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault", ExpirationSeconds: new(int64(600))}},
	}}})))
	s.awaitReady("web")
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	if got := s.sh("web", "cat "+dir+"namespace"); got != s.name {
		t.Errorf("the namespace is said to be %q", got)
	}
	root, err := cluster.client.CoreV1().ConfigMaps(s.name).Get(s.ctx, "kube-root-ca.crt", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.sh("web", "cat "+dir+"ca.crt"); got != root.Data["ca.crt"] {
		t.Errorf("the certificate is not the cluster's:\n%s", got)
	}
	s.review(pod, strings.TrimSpace(s.sh("web", "cat "+dir+"token")), "")
	s.review(pod, strings.TrimSpace(s.sh("web", "cat /vault/token")), "vault")
	if got := strings.TrimSpace(s.sh("web", "stat -L -c '%a %u %g' /vault/token")); got != "640 1000 2000" {
		t.Errorf("mode, user and group of the token are %q, want it for the pod alone", got)
	}
	if got := s.sh("web", "grep /vault /proc/mounts"); !strings.Contains(got, "tmpfs") || !strings.Contains(got, " ro") {
		t.Errorf("the token is mounted as %q, want memory that cannot be written", got)
	}
}

// review asks the API server about a token.
func (s *space) review(pod *corev1.Pod, token, audience string) {
	s.Helper()
	r := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if audience != "" {
		r.Spec.Audiences = []string{audience}
	}
	r, err := cluster.client.AuthenticationV1().TokenReviews().Create(s.ctx, r, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if want := "system:serviceaccount:" + s.name + ":default"; !r.Status.Authenticated || r.Status.User.Username != want {
		s.Errorf("token for %q: %+v, want it to be of %s", audience, r.Status, want)
	}
	if got := r.Status.User.Extra["authentication.kubernetes.io/pod-uid"]; len(got) != 1 || got[0] != string(pod.UID) {
		s.Errorf("token for %q is of pod %v, want %s", audience, got, pod.UID)
	}
}

// TestTrustBundleVolume shows certificates of the cluster, where it serves them.
func TestTrustBundleVolume(t *testing.T) {
	s := newSpace(t)
	bundles := cluster.client.CertificatesV1().ClusterTrustBundles()
	if _, err := bundles.List(s.ctx, metav1.ListOptions{}); err != nil {
		t.Skipf("this cluster serves no trust bundles: %v", err)
	}
	source := func(name string, optional bool) corev1.VolumeProjection {
		return corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: &name, Path: name, Optional: &optional}}
	}
	missing := s.create(newPod("missing", forever, mount("ca", "/ca", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{source("e2e-none", false)},
	}})))
	s.create(newPod("web", forever, mount("ca", "/ca", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{source("e2e-none", true)},
	}})))
	s.awaitReady("web")
	if message := s.awaitEvent(missing, "FailedMount"); !strings.Contains(message, `clustertrustbundle "e2e-none" not found`) {
		t.Errorf("the event says %q", message)
	}
	s.awaitFile("web", "/ca/e2e-none", "")
}

// createVolume makes a volume, and a claim of this namespace that is bound to it.
func (s *space) createVolume(name string, source corev1.PersistentVolumeSource, change ...func(*corev1.PersistentVolume)) {
	s.Helper()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: s.name + "-" + name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: modes, PersistentVolumeSource: source, ClaimRef: &corev1.ObjectReference{Namespace: s.name, Name: name},
	}}
	for _, c := range change {
		c(pv)
	}
	api := cluster.client.CoreV1()
	if _, err := api.PersistentVolumes().Create(s.ctx, pv, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := ignoreNotFound(api.PersistentVolumes().Delete(context.WithoutCancel(s.ctx), pv.Name, metav1.DeleteOptions{})); err != nil {
			s.Error(err)
		}
	})
	s.createClaim(name, pv.Name)
}

func (s *space) createClaim(name, volume string) {
	s.Helper()
	none := ""
	if _, err := cluster.client.CoreV1().PersistentVolumeClaims(s.name).Create(s.ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &none, VolumeName: volume,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func claimed(name string, readOnly bool) corev1.VolumeSource {
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name, ReadOnly: readOnly}}
}

// onNode is a local volume's way to say that it is on the node under test.
func onNode(pv *corev1.PersistentVolume) {
	pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelOSStable, Operator: corev1.NodeSelectorOpIn, Values: []string{"linux"}}},
	}}}}
}

// TestClaims writes to a volume of the machine, by its two kinds, from pods that
// come and go.
func TestClaims(t *testing.T) {
	s := newSpace(t)
	path := "/tmp/nodeagent-" + s.name
	s.createVolume("host", corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: new(corev1.HostPathDirectoryOrCreate)}})
	first := s.create(newPod("first", forever, mount("data", "/data", claimed("host", false))))
	s.awaitReady("first")
	s.sh("first", "echo kept >/data/file; mkdir /data/sub; echo part >/data/sub/file")
	s.kubectl("delete", "pod", "first")
	s.awaitGone("first", first.UID)

	s.createVolume("local", corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}, onNode)
	s.create(newPod("second", forever, mount("data", "/data", claimed("local", false)), mount("ro", "/ro", claimed("host", true)), func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1000)), FSGroup: new(int64(2000))}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/part", SubPath: "sub"})
	}))
	s.awaitReady("second")
	if got := s.sh("second", "cat /data/file /part/file && echo x >/data/new && stat -c %g /data/new"); got != "kept\npart\n2000\n" {
		t.Errorf("the second pod sees %q", got)
	}
	if _, err := s.tryExec("second", "", "touch", "/ro/x"); err == nil {
		t.Error("a claim that is mounted read-only can be written")
	}
	s.sh("second", "rm -r /data/file /data/sub /data/new")
	s.create(newPod("tidy", "rmdir "+path, never, mount("tmp", "/tmp", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}})))
	s.awaitPhase("tidy", corev1.PodSucceeded)
}

// TestClaimProblems says why a pod waits, and of which volume.
func TestClaimProblems(t *testing.T) {
	s := newSpace(t)
	s.createVolume("csi", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "disk.example.com", VolumeHandle: "x"}})
	for name, c := range map[string]struct {
		source corev1.VolumeSource
		want   string
	}{
		"csi": {claimed("csi", false), fmt.Sprintf("failed to process volumes=[data]: error processing PVC %s/csi: PV %s-csi is of kind csi (disk.example.com), which is not supported", s.name, s.name)},
		"nfs": {corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "nowhere.invalid", Path: "/"}}, `MountVolume.SetUp failed for volume "data" : volumes of kind nfs are not supported`},
	} {
		pod := s.create(newPod(name, forever, mount("data", "/data", c.source)))
		if message := s.awaitEvent(pod, "FailedMount"); !strings.Contains(message, c.want) {
			t.Errorf("the event of %s says %q, want %q", name, message, c.want)
		}
		if c := status(s.get(name), "main"); c == nil || c.State.Waiting == nil || c.State.Waiting.Reason != "ContainerCreating" {
			t.Errorf("container of %s: %+v, want ContainerCreating", name, c)
		}
	}
}
