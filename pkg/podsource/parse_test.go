package podsource

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

const goodPod = `apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: c
    image: demo/busybox:1
    resources: {limits: {cpu: 500m}}
`

func TestParseGoodPod(t *testing.T) {
	parsed, problems := ParseFile("/m/web.yaml", []byte("# a comment\n---\n"+goodPod+"---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n"), "Node1")
	if len(problems) > 0 || len(parsed.Pods) != 1 || len(parsed.Secrets) != 1 {
		t.Fatalf("got %d pods, %d secrets, problems %v", len(parsed.Pods), len(parsed.Secrets), problems)
	}
	p := parsed.Pods[0]
	if p.Name != "web-node1" || p.Namespace != "default" || p.Spec.NodeName != "Node1" || len(p.UID) != 32 {
		t.Errorf("identity: %s/%s on %s, UID %q", p.Namespace, p.Name, p.Spec.NodeName, p.UID)
	}
	if p.Annotations[AnnotationHash] != string(p.UID) || p.Annotations[AnnotationSource] != "file" {
		t.Errorf("annotations: %v", p.Annotations)
	}
	c := p.Spec.Containers[0]
	if p.Spec.RestartPolicy != corev1.RestartPolicyAlways || c.ImagePullPolicy != corev1.PullIfNotPresent || c.Resources.Requests.Cpu().String() != "500m" {
		t.Errorf("defaults: %s, %s, request %s", p.Spec.RestartPolicy, c.ImagePullPolicy, c.Resources.Requests.Cpu())
	}
	if string(parsed.Secrets[0].Data["a"]) != "b" {
		t.Errorf("stringData was not merged: %v", parsed.Secrets[0].Data)
	}
}

func TestUID(t *testing.T) {
	uid := func(path, text, node string) string {
		parsed, problems := ParseFile(path, []byte(text), node)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return string(parsed.Pods[0].UID)
	}
	base := uid("/m/a.yaml", goodPod, "n")
	if uid("/m/a.yaml", goodPod, "n") != base {
		t.Error("the UID changes from one reading to the next")
	}
	if uid("/m/a.yaml", "# comment\n"+goodPod, "n") != base {
		t.Error("a comment makes another pod")
	}
	for name, other := range map[string]string{
		"edit": uid("/m/a.yaml", strings.Replace(goodPod, "500m", "501m", 1), "n"),
		"path": uid("/m/b.yaml", goodPod, "n"),
		"node": uid("/m/a.yaml", goodPod, "o"),
	} {
		if other == base {
			t.Errorf("another %s must make another UID", name)
		}
	}
}

func TestProblems(t *testing.T) {
	cases := map[string]struct {
		reason string
		text   string
		line   int
		want   string
	}{
		"UnknownField":  {"a typo is not ignored", strings.Replace(goodPod, "resources:", "colour:", 1), 9, `unknown field "spec.containers[0].colour"`},
		"WrongType":     {"the field is named", strings.Replace(goodPod, "resources: {limits: {cpu: 500m}}", "tty: seven", 1), 9, "cannot unmarshal string"},
		"DuplicateKey":  {"two values for one field", goodPod + "    image: other\n", 10, "already set"},
		"HalfWritten":   {"a syntax error has its line", "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: c, im", 3, "did not find"},
		"UnknownKind":   {"only what can run here", "apiVersion: apps/v1\nkind: Deployment\n", 1, `unknown kind "Deployment"`},
		"SecondDoc":     {"lines count from the file's beginning", goodPod + "---\n" + strings.Replace(goodPod, "image:", "imag:", 1), 18, `unknown field "spec.containers[0].imag"`},
		"NoImage":       {"what an API server would refuse", strings.Replace(goodPod, "    image: demo/busybox:1\n", "", 1), 7, "spec.containers[0].image: Required value"},
		"BadName":       {"", strings.Replace(goodPod, "name: web", "name: a/../b", 1), 4, "metadata.name: Invalid value"},
		"BadUID":        {"a UID becomes a directory", strings.Replace(goodPod, "name: web", "name: web\n  uid: ../../etc", 1), 5, "metadata.uid: Invalid value"},
		"DuplicateName": {"", goodPod + "  - {name: c, image: x}\n", 10, `spec.containers[1].name: Duplicate value: "c"`},
		"LimitBelow":    {"", strings.Replace(goodPod, "{limits: {cpu: 500m}}", "{limits: {cpu: 500m}, requests: {cpu: 1}}", 1), 9, "must be less than or equal to cpu limit of 500m"},
		"Empty":         {"a file for nothing is a mistake", "# nothing\n", 0, "holds no Pod"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			parsed, problems := ParseFile("/m/f.yaml", []byte(tc.text), "n")
			if len(problems) != 1 {
				t.Fatalf("%s: got problems %v, want one", tc.reason, problems)
			}
			p := problems[0]
			if p.Line != tc.line || !strings.Contains(p.Err.Error(), tc.want) {
				t.Errorf("%s: got line %d %q, want line %d %q", tc.reason, p.Line, p.Err, tc.line, tc.want)
			}
			if name == "SecondDoc" && len(parsed.Pods) != 1 {
				t.Errorf("the good document of the file was lost")
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(goodPod))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("---\n---\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, problems := ParseFile("/m/f.yaml", data, "n")
		if len(problems) == 0 && len(parsed.Pods)+len(parsed.ConfigMaps)+len(parsed.Secrets) == 0 {
			t.Error("nothing was found and nothing was said")
		}
	})
}
