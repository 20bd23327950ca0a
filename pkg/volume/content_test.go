package volume

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func keys(pairs ...string) []corev1.KeyToPath {
	var out []corev1.KeyToPath
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, corev1.KeyToPath{Key: pairs[i], Path: pairs[i+1]})
	}
	return out
}

func projected(sources ...corev1.VolumeProjection) corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources, DefaultMode: new(int32(0o600))}}
}

func configMap(name string, items ...corev1.KeyToPath) *corev1.ConfigMapVolumeSource {
	return &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}
}

func TestPayloads(t *testing.T) {
	set := newSet(t, objects{"cfg": {"a": "1", "b": "2"}, "pw": {"key": "s3cret"}})
	named := corev1.LocalObjectReference{Name: "cfg"}
	cases := map[string]struct {
		reason string
		source corev1.VolumeSource
		want   map[string]payload
		err    string
	}{
		"AllKeys": {"without items every key is a file", corev1.VolumeSource{ConfigMap: configMap("cfg")},
			map[string]payload{"a": {data: []byte("1"), mode: 0o644}, "b": {data: []byte("2"), mode: 0o644}}, ""},
		"Items": {"items choose and rename; their mode wins", corev1.VolumeSource{ConfigMap: configMap("cfg", corev1.KeyToPath{Key: "a", Path: "x/./y", Mode: new(int32(0o400))})},
			map[string]payload{"x/y": {data: []byte("1"), mode: 0o400}}, ""},
		"NoKey": {"a key that is missing is said", corev1.VolumeSource{ConfigMap: configMap("cfg", keys("z", "z")...)},
			nil, `configmap "cfg" references non-existent key: z`},
		"OptionalKey": {"unless it is optional", corev1.VolumeSource{ConfigMap: func() *corev1.ConfigMapVolumeSource {
			c := configMap("cfg", keys("z", "z", "a", "a")...)
			c.Optional = new(true)
			return c
		}()}, map[string]payload{"a": {data: []byte("1"), mode: 0o644}}, ""},
		"NoObject": {"so is an object", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none"}}, nil, `secret "none"`},
		"OptionalObject": {"unless it is optional: then the volume is empty", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none", Optional: new(true)}},
			map[string]payload{}, ""},
		"DefaultMode": {"the volume's mode holds for all", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "pw", DefaultMode: new(int32(0o400))}},
			map[string]payload{"key": {data: []byte("s3cret"), mode: 0o400}}, ""},
		"Projected": {"all sources in one volume", projected(
			corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named, Items: keys("a", "cfg/a")}},
			corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "pw"}}},
			corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}, Mode: new(int32(0o444))},
				{Path: "memory", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.memory"}},
			}}}),
			map[string]payload{
				"cfg/a": {data: []byte("1"), mode: 0o600}, "key": {data: []byte("s3cret"), mode: 0o600},
				"labels": {data: []byte("app=\"web\"\ntier=\"a \\\"b\\\"\""), mode: 0o444}, "memory": {data: []byte("134217728"), mode: 0o600},
			}, ""},
		"Token": {"nobody could sign it", projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}),
			nil, "source 0: needs an API server"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := set.payloads(t.Context(), basePod(), &corev1.Volume{Name: "v", VolumeSource: tc.source})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%s: error is %v, want %q", tc.reason, err, tc.err)
				}
				return
			}
			must(t, err)
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(payload{})); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestConfigMapIsUpdated(t *testing.T) {
	o := objects{"cfg": {"a": "1"}}
	set, pod := newSet(t, o), basePod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: configMap("cfg")}})
	mounted, err := set.Setup(t.Context(), pod)
	must(t, err)
	dir := mounted["v"].HostPath
	if !mounted["v"].ReadOnly {
		t.Error("the volume can be written")
	}
	again, err := set.Update(t.Context(), pod)
	must(t, err)
	if again {
		t.Error("nothing has changed, but Update says so")
	}
	o["cfg"] = map[string]string{"a": "2", "b": "3"}
	again, err = set.Update(t.Context(), pod)
	must(t, err)
	if d := cmp.Diff(map[string]string{"a": "0644 2", "b": "0644 3"}, tree(t, dir)); d != "" || !again {
		t.Errorf("changed %v (-want +got):\n%s", again, d)
	}
	delete(o, "cfg")
	if _, err := set.Update(t.Context(), pod); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `volume "v"`) {
		t.Errorf("error is %v, want one that names the volume", err)
	}
	if got := tree(t, dir); len(got) != 2 {
		t.Errorf("the pod lost what it had: %v", got)
	}
	must(t, set.Teardown(t.Context(), pod.UID))
	must(t, set.Teardown(t.Context(), pod.UID))
	if _, err := set.Setup(t.Context(), basePod(corev1.Volume{Name: "nfs", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}})); err == nil || !strings.Contains(err.Error(), `"nfs" : volumes of kind nfs are not supported`) {
		t.Errorf("error is %v", err)
	}
}

// TestNewAgentKeepsContents is an agent that starts while the API server is away.
func TestNewAgentKeepsContents(t *testing.T) {
	o := objects{"cfg": {"a": "1"}}
	set := newSet(t, o)
	pod := basePod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: configMap("cfg")}})
	away := func(context.Context, *corev1.Pod, string) (*corev1.ConfigMap, error) { return nil, errors.New("away") }
	there := set.ConfigMap
	set.ConfigMap = away
	if _, err := set.Setup(t.Context(), pod); err == nil {
		t.Error("a pod that has never had its files starts without them")
	}
	set.ConfigMap = there
	_, err := set.Setup(t.Context(), pod)
	must(t, err)
	set.ConfigMap = away
	mounted, err := set.Setup(t.Context(), pod)
	must(t, err)
	if diff := cmp.Diff(map[string]string{"a": "0644 1"}, tree(t, mounted["v"].HostPath)); diff != "" || !mounted["v"].ReadOnly {
		t.Errorf("-want +got:\n%s", diff)
	}
}
