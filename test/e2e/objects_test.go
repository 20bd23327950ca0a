//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func local(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func (s *space) createConfigMap(name string, data map[string]string) {
	s.Helper()
	_, err := cluster.client.CoreV1().ConfigMaps(s.name).Create(s.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *space) createSecret(name string, data map[string][]byte) {
	s.Helper()
	_, err := cluster.client.CoreV1().Secrets(s.name).Create(s.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// TestEnvironment takes variables from everywhere they can come from.
func TestEnvironment(t *testing.T) {
	s := newSpace(t)
	s.createConfigMap("cfg", map[string]string{"color": "blue", "size": "big"})
	s.createSecret("keys", map[string][]byte{"password": []byte("s3cret")})
	if _, err := cluster.client.CoreV1().Services(s.name).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "my-db"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 5432}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.create(newPod("env", "env; "+forever, func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.EnvFrom = []corev1.EnvFromSource{{Prefix: "CFG_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("cfg")}}}
		c.Env = []corev1.EnvVar{
			{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("keys"), Key: "password"}}},
			{Name: "MISSING", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("none"), Key: "x", Optional: new(true)}}},
			{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "URL", Value: "db://$(MY_DB_SERVICE_HOST)/$(CFG_color)?$(NOBODY)"},
		}
	}))
	s.awaitReady("env")
	got := s.sh("env", "env")
	db, err := cluster.client.CoreV1().Services(s.name).Get(s.ctx, "my-db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"CFG_color=blue", "CFG_size=big", "PASSWORD=s3cret", "POD=env", "KUBERNETES_SERVICE_PORT=443", "MY_DB_SERVICE_HOST=" + db.Spec.ClusterIP, "MY_DB_SERVICE_PORT=5432",
		"MY_DB_PORT_5432_TCP_ADDR=" + db.Spec.ClusterIP, "URL=db://" + db.Spec.ClusterIP + "/blue?$(NOBODY)",
	} {
		if !strings.Contains("\n"+got, "\n"+want+"\n") {
			t.Errorf("%s is not in the environment:\n%s", want, got)
		}
	}
	if strings.Contains(got, "MISSING=") {
		t.Error("an optional variable that is nowhere is set")
	}
}

// TestMissingObjects waits for what is not there yet, says so, and goes on as soon
// as it is.
func TestMissingObjects(t *testing.T) {
	s := newSpace(t)
	volume := s.create(newPod("volume", forever, mountSecret("later", false)))
	s.create(newPod("variable", forever, func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("later")}}}
	}))
	s.create(newPod("optional", forever, mountSecret("later", true)))
	s.awaitReady("optional")
	if message := s.awaitEvent(volume, "FailedMount"); !strings.Contains(message, `MountVolume.SetUp failed for volume "secret"`) || !strings.Contains(message, `secret "later" not found`) {
		t.Errorf("the event says %q", message)
	}
	s.awaitPod("variable", "waits for its configuration", func(p *corev1.Pod) bool {
		c := status(p, "main")
		return c != nil && c.State.Waiting != nil && c.State.Waiting.Reason == "CreateContainerConfigError" && strings.Contains(c.State.Waiting.Message, `configmap "later" not found`)
	})
	s.createSecret("later", map[string][]byte{"key": []byte("value")})
	s.createConfigMap("later", map[string]string{"KEY": "value"})
	s.awaitReady("volume")
	s.awaitReady("variable")
	s.awaitFile("optional", "/secret/key", "value")
}

func mountSecret(name string, optional bool) func(*corev1.Pod) {
	return mount("secret", "/secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Optional: &optional}})
}

// mount shows a volume to the pod's container.
func mount(name, path string, source corev1.VolumeSource) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		c := &p.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
	}
}

// awaitFile waits until a file in a container has a content.
func (s *space) awaitFile(pod, path, want string) {
	s.Helper()
	s.await(path+" of "+pod+" is "+want, func() error {
		got, err := s.tryExec(pod, "", "cat", path)
		if err == nil && got != want {
			return fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// TestObjectsAreUpdated changes what running pods see.
func TestObjectsAreUpdated(t *testing.T) {
	s := newSpace(t)
	s.createConfigMap("cfg", map[string]string{"key": "1"})
	s.createSecret("pw", map[string][]byte{"key": []byte("1")})
	s.create(newPod("web", forever, mountSecret("pw", false),
		mount("cfg", "/cfg", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("cfg")}}),
		mount("labels", "/labels", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}}})))
	s.awaitReady("web")
	s.kubectl("patch", "configmap", "cfg", "--patch", `{"data": {"key": "2"}}`)
	s.kubectl("patch", "secret", "pw", "--patch", `{"stringData": {"key": "2"}}`)
	s.kubectl("label", "pod", "web", "color=red")
	s.awaitFile("web", "/cfg/key", "2")
	s.awaitFile("web", "/secret/key", "2")
	s.awaitFile("web", "/labels/labels", "app=\"web\"\ncolor=\"red\"")
	s.kubectl("delete", "configmap", "cfg")
	s.kubectl("patch", "secret", "pw", "--patch", `{"stringData": {"key": "3"}}`)
	s.awaitFile("web", "/secret/key", "3")
	s.awaitFile("web", "/cfg/key", "2")
}

// TestBigSecret is the largest that an API server takes.
func TestBigSecret(t *testing.T) {
	s := newSpace(t)
	const size = 1 << 20
	s.createSecret("big", map[string][]byte{"blob": []byte(strings.Repeat("x", size))})
	s.create(newPod("web", forever, mountSecret("big", false)))
	s.awaitReady("web")
	if got := strings.TrimSpace(s.sh("web", "wc -c </secret/blob")); got != fmt.Sprint(size) {
		t.Errorf("the pod sees %s bytes", got)
	}
}
