package object

import (
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func local(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func TestReferences(t *testing.T) {
	env := func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "A", Value: "x"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("one")}}},
			{Name: "C", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("two")}}}}
		c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("three")}}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("four")}}}
	}
	fromEnv := []key{named(configMaps, "shop", "one"), named(secrets, "shop", "two"), named(configMaps, "shop", "three"), named(secrets, "shop", "four")}
	cases := map[string]struct {
		reason string
		change func(*corev1.Pod)
		want   []key
	}{
		"None":  {"every pod finds the API server", func(*corev1.Pod) {}, nil},
		"Links": {"the services of its namespace", func(p *corev1.Pod) { p.Spec.EnableServiceLinks = new(true) }, []key{{kind: services, namespace: "shop"}}},
		"Pull":  {"pull secrets", func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{local("pull"), local("")} }, []key{named(secrets, "shop", "pull")}},
		"Env":   {"variables of a container", func(p *corev1.Pod) { env(&p.Spec.Containers[0]) }, fromEnv},
		"Init": {"of an init container", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i"}}
			env(&p.Spec.InitContainers[0])
		}, fromEnv},
		"Ephemeral": {"of an ephemeral container", func(p *corev1.Pod) {
			c := corev1.Container{Name: "e"}
			env(&c)
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon(c)}}
		}, fromEnv},
		"Volumes": {"volumes of both kinds", func(p *corev1.Pod) {
			withConfigMap("cfg")(p)
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "pw"}}}, corev1.Volume{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		}, []key{named(configMaps, "shop", "cfg"), named(secrets, "shop", "pw")}},
		"Projected": {"and projected ones", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("kube-root-ca.crt")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("pw")}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
				{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: new("roots")}},
				{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{SignerName: new("x.io/y"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}},
				{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{SignerName: new("x.io/none")}},
			}}}}}
		}, []key{
			named(configMaps, "shop", "kube-root-ca.crt"), named(secrets, "shop", "pw"), named(trustBundles, "", "roots"),
			{kind: trustBundles, fields: "spec.signerName=x.io/y", labels: "a=b"},
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want := map[key]bool{apiServer(): true}
			for _, k := range tc.want {
				want[k] = true
			}
			if diff := cmp.Diff(want, references(basePod(tc.change)), cmp.AllowUnexported(key{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func service(ip string, ports ...map[string]any) map[string]any {
	return map[string]any{"spec": map[string]any{"clusterIP": ip, "ports": ports}}
}

func port(name string, number int) map[string]any {
	return map[string]any{"name": name, "port": number, "protocol": "TCP"}
}

func TestServices(t *testing.T) {
	apiVariables := map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443", "KUBERNETES_PORT": "tcp://10.0.0.1:443",
		"KUBERNETES_PORT_443_TCP": "tcp://10.0.0.1:443", "KUBERNETES_PORT_443_TCP_PROTO": "tcp", "KUBERNETES_PORT_443_TCP_PORT": "443", "KUBERNETES_PORT_443_TCP_ADDR": "10.0.0.1",
	}
	own := map[string]string{
		"MY_DB_SERVICE_HOST": "fd00::7", "MY_DB_SERVICE_PORT": "5432", "MY_DB_PORT": "tcp://[fd00::7]:5432", "MY_DB_PORT_5432_TCP": "tcp://[fd00::7]:5432",
		"MY_DB_PORT_5432_TCP_PROTO": "tcp", "MY_DB_PORT_5432_TCP_PORT": "5432", "MY_DB_PORT_5432_TCP_ADDR": "fd00::7",
		"MY_DB_SERVICE_PORT_X_Y": "81", "MY_DB_PORT_81_TCP": "tcp://[fd00::7]:81", "MY_DB_PORT_81_TCP_PROTO": "tcp", "MY_DB_PORT_81_TCP_PORT": "81", "MY_DB_PORT_81_TCP_ADDR": "fd00::7",
	}
	both := map[string]string{}
	for _, m := range []map[string]string{apiVariables, own} {
		maps.Copy(both, m)
	}
	cases := map[string]struct {
		reason string
		links  bool
		want   map[string]string
		asked  int // of the namespace's services
	}{
		"Links":   {"the API server and what is in the namespace", true, both, 2},
		"NoLinks": {"the API server alone; nobody asks for the others", false, apiVariables, 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				a.put("/api/v1/namespaces/default/services", "kubernetes", service("10.0.0.1", port("https", 443)))
				a.put("/api/v1/namespaces/default/services", "other", service("10.0.0.2", port("", 80)))
				a.put("/api/v1/namespaces/shop/services", "my-db", service("fd00::7", port("", 5432), port("x-y", 81)))
				a.put("/api/v1/namespaces/shop/services", "headless", service("None", port("", 80)))
				s, _ := newStore(t, a)
				pod := basePod(func(p *corev1.Pod) { p.Spec.EnableServiceLinks = &tc.links })
				s.SetPods([]*corev1.Pod{pod})
				got, err := s.Services(t.Context(), pod)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
				}
				synctest.Wait()
				if got := len(about(a.log(), "namespaces/shop/services")); got != tc.asked {
					t.Errorf("%s: the namespace's services were asked for %d times, want %d", tc.reason, got, tc.asked)
				}
			})
		})
	}
	t.Run("Unknown", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAPI()
			a.down = true
			s, _ := newStore(t, a)
			pod := basePod()
			s.SetPods([]*corev1.Pod{pod})
			if _, err := s.Services(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "services have not yet been read at least once") {
				t.Errorf("error is %v, want the container to wait", err)
			}
		})
	})
}

func TestTrustBundle(t *testing.T) {
	const bundles = "/apis/certificates.k8s.io/v1/clustertrustbundles"
	const x, y = "-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\neQ==\n-----END CERTIFICATE-----\n"
	bundle := func(pem string) map[string]any { return map[string]any{"spec": map[string]any{"trustBundle": pem}} }
	selected := &corev1.ClusterTrustBundleProjection{SignerName: new("x.io/y"), LabelSelector: &metav1.LabelSelector{}}
	cases := map[string]struct {
		reason  string
		source  *corev1.ClusterTrustBundleProjection
		refuse  int
		want    string
		err     string
		missing bool
	}{
		"Name":      {reason: "one by its name", source: &corev1.ClusterTrustBundleProjection{Name: new("b")}, want: y},
		"Selected":  {reason: "all of a signer, each certificate once and nothing else", source: selected, want: x + y},
		"Missing":   {reason: "one that is not there", source: &corev1.ClusterTrustBundleProjection{Name: new("c")}, err: `"c" not found`, missing: true},
		"NoLabels":  {reason: "without a selector none matches", source: &corev1.ClusterTrustBundleProjection{SignerName: new("x.io/y")}, err: "not found", missing: true},
		"NotServed": {reason: "an API server that has none is not one without this one", source: selected, refuse: 404, err: "does not serve"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				a.put(bundles, "a", bundle("comment\n"+y+x))
				a.put(bundles, "b", bundle(y))
				if tc.refuse != 0 {
					a.refuse = func(*http.Request) int { return tc.refuse }
				}
				s, _ := newStore(t, a)
				pod := basePod(func(p *corev1.Pod) {
					p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: tc.source}}}}}}
				})
				s.SetPods([]*corev1.Pod{pod})
				got, err := s.TrustBundle(t.Context(), pod, tc.source)
				if tc.err != "" {
					if err == nil || !strings.Contains(err.Error(), tc.err) || errors.Is(err, fs.ErrNotExist) != tc.missing {
						t.Errorf("%s: error is %v, want %q", tc.reason, err, tc.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, string(got)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
				}
			})
		})
	}
}
