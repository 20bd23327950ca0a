package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const planConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
---
apiVersion: nodeagent.dev/v1alpha1
kind: NodeAgentConfiguration
nodeName: node
rootDir: /nowhere/root
stateDir: /nowhere/run
`

const planManifest = `apiVersion: v1
kind: Pod
metadata: {name: web, uid: abc}
spec:
  securityContext: {runAsUser: 1000, fsGroup: 2000, runAsNonRoot: true}
  initContainers:
  - {name: helper, image: demo, restartPolicy: Always}
  containers:
  - name: c
    image: demo
    args: [--name, $(NAME), --mode, $(MODE)]
    env:
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: MODE, valueFrom: {configMapKeyRef: {name: cfg, key: mode}}}
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    volumeMounts: [{name: data, mountPath: /data}, {name: cfg, mountPath: /cfg, subPath: mode}]
  volumes: [{name: data, emptyDir: {}}, {name: cfg, configMap: {name: cfg}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cfg}
data: {mode: fast}
`

// plan runs the command on a manifest, and returns what it says.
func plan(t *testing.T, manifest string, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"config.yaml": planConfig, "pod.yaml": manifest} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	c := newPlanCommand()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append([]string{"--config", dir + "/config.yaml", "-f", dir + "/pod.yaml"}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestPlan(t *testing.T) {
	out, err := plan(t, planManifest, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Pods []podPlan }
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Pods) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	p := got.Pods[0]
	var paths []string
	for _, c := range p.Cgroups {
		paths = append(paths, c.Path)
	}
	if want := []string{"/kubepods", "/kubepods/burstable", "/kubepods/burstable/podabc"}; !slices.Equal(paths, want) || p.QOSClass != "Burstable" {
		t.Errorf("%s pod in %q, want %q", p.QOSClass, paths, want)
	}
	if len(p.Containers) != 2 || p.Containers[0].Kind != "sidecar" || p.Containers[1].CgroupsPath != "/kubepods/burstable/podabc/<id>" {
		t.Fatalf("containers are %+v", p.Containers)
	}
	spec := p.Containers[1].Spec
	if want := []string{"<entry point of demo>", "--name", "web-node", "--mode", "fast"}; !slices.Equal(spec.Process.Args, want) {
		t.Errorf("args are %q, want %q", spec.Process.Args, want)
	}
	if u := spec.Process.User; u.UID != 1000 || !slices.Contains(u.AdditionalGids, 2000) {
		t.Errorf("user is %+v", u)
	}
	if m := spec.Linux.Resources.Memory; m == nil || m.Limit == nil || *m.Limit != 64<<20 {
		t.Errorf("memory is %+v", m)
	}
	for target, source := range map[string]string{
		"/data": "/nowhere/root/pods/abc/volumes/kubernetes.io~empty-dir/data", "/cfg": "/nowhere/root/pods/abc/volume-subpaths/c/1",
		"/etc/hosts": "/nowhere/run/sandboxes/abc/hosts",
	} {
		if !slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == target && m.Source == source }) {
			t.Errorf("%s is not mounted at %s", source, target)
		}
	}
	if _, err := os.Stat("/nowhere"); err == nil {
		t.Error("a plan made directories")
	}
	if out, err = plan(t, planManifest); err != nil || !strings.Contains(out, "    podabc") || !strings.Contains(out, "cpu") {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestPlanErrors(t *testing.T) {
	cases := map[string]struct {
		reason string
		text   string
		args   []string
		want   []string
	}{
		"Problems":  {"by file and line", strings.NewReplacer("cpu: 500m", "cpu: much").Replace(planManifest), nil, []string{"pod.yaml:15: "}},
		"NoObject":  {"the plan would not be true", strings.Replace(planManifest, "metadata: {name: cfg}", "metadata: {name: other}", 1), nil, []string{"container c", `configmap "cfg" is not in this file`}},
		"NoPod":     {"nothing to plan", planManifest[strings.Index(planManifest, "---"):], nil, []string{"holds no pod"}},
		"Kind":      {"no such volume would be made", strings.Replace(planManifest, "emptyDir: {}", "nfs: {server: a, path: /b}", 1), nil, []string{`volume "data": volumes of kind nfs are not supported`}},
		"BadFormat": {"", planManifest, []string{"-o", "xml"}, []string{`unknown output format "xml"`}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := plan(t, tc.text, tc.args...)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: error is %v, want %q", tc.reason, err, want)
				}
			}
		})
	}
}
