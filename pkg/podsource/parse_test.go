package podsource

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
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

// edit changes goodPod; what it changes must be there.
func edit(t *testing.T, old, replacement string) string {
	t.Helper()
	if !strings.Contains(goodPod, old) {
		t.Fatalf("the good pod does not contain %q", old)
	}
	return strings.Replace(goodPod, old, replacement, 1)
}

// parse reads text that must be good.
func parse(t *testing.T, text string) Parsed {
	t.Helper()
	parsed, problems := ParseFile("/m/f.yaml", []byte(text), "Node1")
	if len(problems) > 0 {
		t.Fatalf("problems: %v\n%s", problems, text)
	}
	return parsed
}

func TestParseFile(t *testing.T) {
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\ndata: {c: ZA==}\n"
	const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: x}\ndata: {a: b}\n"
	cases := map[string]struct {
		reason string
		text   string
		want   []string
	}{
		"Pod":             {"the usual file", goodPod, []string{"pod default/web-node1 5:0"}},
		"Documents":       {"several documents, the first empty", "# a comment\n---\n" + goodPod + "--- # next\n" + secret + "---\n" + settings + "---\n", []string{"pod default/web-node1 5:0", "configMap x/m map[a:b]", "secret default/s map[a:[98] c:[100]]"}},
		"JSON":            {"JSON is as good as YAML", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"i","args":["\ud83d\ude00"]}]}}`, []string{"pod default/web-node1 0:0"}},
		"SeveralJSON":     {"JSON needs no divider", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}} {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}`, []string{"configMap default/a map[]", "configMap default/b map[]"}},
		"IndentedJSON":    {"tabs are fine in JSON", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"a\"}\n}\n", []string{"configMap default/a map[]"}},
		"FlowYAML":        {"what looks like JSON may be YAML", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", []string{"configMap default/a map[]"}},
		"List":            {"as kubectl get -o yaml writes several", "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n", []string{"configMap default/a map[]", "secret default/b map[]"}},
		"PodList":         {"items of a typed list need no kind", "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: web}\n  spec: {containers: [{name: c, image: i}]}\n", []string{"pod default/web-node1 0:0"}},
		"Anchors":         {"anchors and merges save typing", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  initContainers:\n  - &base {name: a, image: i, tty: true}\n  containers:\n  - {<<: *base, name: b}\n", []string{"pod default/web-node1 0:0"}},
		"OnlyComments":    {"a file may be switched off by commenting it out", "# " + strings.ReplaceAll(strings.TrimSpace(goodPod), "\n", "\n# ") + "\n", nil},
		"WindowsEndings":  {"an editor's line endings do not matter", strings.ReplaceAll("---\n"+goodPod+"---\n"+settings, "\n", "\r\n"), []string{"pod default/web-node1 5:0", "configMap x/m map[a:b]"}},
		"ByteOrderMark":   {"nor does its byte order mark", "\ufeff" + goodPod, []string{"pod default/web-node1 5:0"}},
		"OldBooleans":     {"the kubelet's YAML knows yes and no", goodPod + "    tty: yes\n    stdin: off\n", []string{"pod default/web-node1 5:0"}},
		"DividerInBlock":  {"three dashes inside a block of text that is indented", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  f: |\n    x\n    ---\n", []string{"configMap default/a map[f:x\n---\n]"}},
		"NullFields":      {"null is as good as absent", goodPod + "    args:\n    env: null\nstatus:\n", []string{"pod default/web-node1 5:0"}},
		"ServerSideStuff": {"what only an API server writes is dropped", goodPod + "status: {phase: Running, podIP: 1.2.3.4}\n", []string{"pod default/web-node1 5:0"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			parsed := parse(t, tc.text)
			var got []string
			for _, p := range parsed.Pods {
				cpu := p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue() / 100
				got = append(got, fmt.Sprintf("pod %s/%s %d:%d", p.Namespace, p.Name, cpu, len(p.Status.PodIP)))
			}
			for _, c := range parsed.ConfigMaps {
				got = append(got, fmt.Sprintf("configMap %s/%s %v", c.Namespace, c.Name, c.Data))
			}
			for _, s := range parsed.Secrets {
				got = append(got, fmt.Sprintf("secret %s/%s %v", s.Namespace, s.Name, s.Data))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestStaticPod(t *testing.T) {
	pod := parse(t, edit(t, "name: web", `name: web
  uid: ""
  resourceVersion: "7"
  deletionTimestamp: 2026-01-01T00:00:00Z
  finalizers: [a/b]
  ownerReferences: [{apiVersion: v1, kind: Node, name: n, uid: u}]
  annotations: {kubernetes.io/config.mirror: x, kubernetes.io/config.source: api, own: "1"}`)+"  priorityClassName: system-node-critical\n").Pods[0]
	if pod.ResourceVersion != "" || pod.DeletionTimestamp != nil || len(pod.Finalizers)+len(pod.OwnerReferences) > 0 {
		t.Errorf("metadata of an API server was kept: %+v", pod.ObjectMeta)
	}
	if pod.Spec.NodeName != "Node1" || len(pod.UID) != 32 || pod.Status.Phase != corev1.PodPending {
		t.Errorf("node %q, UID %q, phase %q", pod.Spec.NodeName, pod.UID, pod.Status.Phase)
	}
	want := map[string]string{"own": "1", AnnotationSource: "file", AnnotationHash: string(pod.UID)}
	if diff := cmp.Diff(want, pod.Annotations); diff != "" {
		t.Errorf("annotations, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]corev1.Toleration{{Operator: "Exists", Effect: "NoExecute"}}, pod.Spec.Tolerations); diff != "" {
		t.Errorf("tolerations, -want +got:\n%s", diff)
	}
	if ptr.Deref(pod.Spec.Priority, 0) != 2_000_001_000 {
		t.Errorf("priority: %v", pod.Spec.Priority)
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
	// This value may only change together with a release note: whoever updates the
	// agent would see every static pod restarted.
	if want := "25d552add1db5d8eb17b132613cc8906"; base != want {
		t.Errorf("UID %q, want %q", base, want)
	}
	for name, same := range map[string]string{
		"the same":    goodPod,
		"a comment":   "# comment\n" + goodPod,
		"order":       edit(t, "  - name: c\n    image: demo/busybox:1\n", "  - image: demo/busybox:1\n    name: c\n"),
		"layout":      edit(t, "metadata:\n  name: web\n", "metadata: {name: \"web\"}\n"),
		"a status":    goodPod + "status: {phase: Failed}\n",
		"a mirror":    edit(t, "name: web", "name: web\n  annotations: {kubernetes.io/config.hash: x}\n  resourceVersion: \"9\""),
		"a neighbour": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\n" + goodPod,
	} {
		if got := uid("/m/a.yaml", same, "n"); got != base {
			t.Errorf("%s makes another UID", name)
		}
	}
	for name, other := range map[string]string{
		"edit":  uid("/m/a.yaml", edit(t, "500m", "501m"), "n"),
		"label": uid("/m/a.yaml", edit(t, "name: web", "name: web\n  labels: {a: b}"), "n"),
		"path":  uid("/m/b.yaml", goodPod, "n"),
		"node":  uid("/m/a.yaml", goodPod, "o"),
	} {
		if other == base {
			t.Errorf("another %s must make another UID", name)
		}
	}
	pod := parse(t, edit(t, "name: web", "name: web\n  uid: my-own-1")).Pods[0]
	if pod.UID != "my-own-1" || len(pod.Annotations[AnnotationHash]) != 32 {
		t.Errorf("a UID given by hand: %q with hash %q, want its own and the content's", pod.UID, pod.Annotations[AnnotationHash])
	}
}

func TestProblems(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	bomb := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n  managedFields:\n  - fieldsV1:\n      a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("      %c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	cases := map[string]struct {
		reason string
		text   string
		line   int
		want   string
	}{
		"UnknownField":   {"a typo is not ignored", edit(t, "resources:", "resource:"), 9, "spec.containers[0].resource: unknown field (did you mean resources?)"},
		"Case":           {"names are case-sensitive", edit(t, "image:", "Image:"), 8, "spec.containers[0].Image: unknown field (did you mean image?)"},
		"WrongType":      {"the field is named", edit(t, "resources: {limits: {cpu: 500m}}", "tty: seven"), 9, `spec.containers[0].tty: want true or false, got "seven"`},
		"Unquoted":       {"the commonest mistake has its remedy", goodPod + "    args: [a, 8080]\n", 10, "spec.containers[0].args[1]: want text, got 8080: put it in quotes"},
		"ListForText":    {"", edit(t, "image: demo/busybox:1", "image: [a]"), 8, "spec.containers[0].image: want text, got a list"},
		"ObjectForList":  {"", edit(t, "  - name: c\n    image: demo/busybox:1\n    resources: {limits: {cpu: 500m}}\n", "    name: c\n"), 7, "spec.containers: want a list, got an object"},
		"EmptyItem":      {"", goodPod + "  -\n", 10, "spec.containers[1]: the list's item is empty"},
		"Quantity":       {"", edit(t, "500m", "500mm"), 9, `spec.containers[0].resources.limits[cpu]: want a quantity such as 100m, 1.5 or 64Mi, got "500mm"`},
		"OutOfRange":     {"", goodPod + "    ports: [{containerPort: 99999999999}]\n", 10, "spec.containers[0].ports[0].containerPort: want a whole number, got 99999999999, which is out of range"},
		"Fraction":       {"", goodPod + "    ports: [{containerPort: 1.5}]\n", 10, "want a whole number, got 1.5"},
		"DuplicateKey":   {"two values for one field", goodPod + "    image: other\n", 10, `spec.containers[0]: field "image" is set twice, first in line 8`},
		"DuplicateInMap": {"", edit(t, "name: web", "name: web\n  labels: {a: b, a: c}"), 5, `metadata.labels: field "a" is set twice, first in line 5`},
		"DuplicateJSON":  {"", "{\"apiVersion\": \"v1\",\n\"kind\": \"ConfigMap\",\n\"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"a\"}}", 3, `field "kind" is set twice, first in line 2`},
		"HalfWritten":    {"a syntax error has its line", "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: c, im", 3, "not valid YAML: did not find expected"},
		"BadIndent":      {"the line that is wrong, not where its block began", edit(t, "    image: demo/busybox:1", "     image: demo/busybox:1"), 8, "not valid YAML"},
		"BadIndentLater": {"", goodPod + "   tty: true\n", 10, "not valid YAML: did not find expected"},
		"NoColon":        {"", edit(t, "image: demo/busybox:1", "image"), 8, "not valid YAML: could not find expected ':'"},
		"Tab":            {"", edit(t, "    image:", "\timage:"), 8, "not valid YAML"},
		"Control":        {"", edit(t, "demo", "de\x07mo"), 8, "control character U+0007 is not allowed"},
		"Binary":         {"an archive has strayed into the directory", "\x1f\x8b\x08\x00\xff", 1, "not allowed"},
		"NotUTF8":        {"", edit(t, "demo", "d\xe9mo"), 8, "not a text file in UTF-8"},
		"UnknownKind":    {"only what can run here", "apiVersion: apps/v1\nkind: Deployment\n", 1, "Deployment of apps/v1 is not for a manifest directory: want Pod, ConfigMap or Secret of v1"},
		"OtherCoreKind":  {"", "apiVersion: v1\nkind: Service\n", 2, "kind Service is not for a manifest directory"},
		"NoKind":         {"", "apiVersion: v1\n", 1, "kind is missing"},
		"Text":           {"a README has strayed into the directory", "Read me first.\n", 1, "want an object"},
		"Empty":          {"truncated, about to be written", " \n\n", 0, "the file is empty"},
		"SecondDoc":      {"lines count from the file's beginning", goodPod + "---\n" + edit(t, "image:", "imag:"), 18, "spec.containers[0].imag: unknown field (did you mean image?)"},
		"InList":         {"", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {nam: a}\n", 6, "metadata.nam: unknown field (did you mean name?)"},
		"Twice":          {"", goodPod + "---\n" + goodPod, 11, "Pod default/web-node1 is in this file twice, first in line 1"},
		"Depth":          {"", edit(t, "500m", deep), 9, "nested more than 64 levels deep"},
		"Bomb":           {"ten lines must not become a billion values", bomb, 7, "more than 200000 values, aliases counted each time"},
		"Cycle":          {"", edit(t, "name: web", "name: web\n  managedFields: [{fieldsV1: &a {b: *a}}]"), 5, `metadata.managedFields[0].fieldsV1[b][b]: anchor "a" contains itself`},
		"MergeNonsense":  {"", edit(t, "name: web", "name: web\n  <<: 7"), 5, "only a mapping can be merged, got 7"},
		"Tag":            {"", edit(t, "image: demo/busybox:1", "image: !!binary aaaa"), 8, "is not a value that can be used here"},
		"NoImage":        {"what an API server would refuse", edit(t, "    image: demo/busybox:1\n", ""), 7, "spec.containers[0].image: Required value"},
		"BadName":        {"", edit(t, "name: web", "name: a/../b"), 4, "metadata.name: Invalid value"},
		"BadUID":         {"a UID becomes a directory", edit(t, "name: web", "name: web\n  uid: ../../etc"), 5, "metadata.uid: Invalid value"},
		"UnderscoreUID":  {"a UID becomes a slice", edit(t, "name: web", "name: web\n  uid: a_b"), 5, "metadata.uid: Invalid value"},
		"DuplicateName":  {"", goodPod + "  - {name: c, image: x}\n", 10, `spec.containers[1].name: Duplicate value: "c"`},
		"LimitBelow":     {"", edit(t, "{limits: {cpu: 500m}}", "{limits: {cpu: 500m}, requests: {cpu: 1}}"), 9, "spec.containers[0].resources.requests[cpu]"},
		"ServiceAccount": {"there is no API", goodPod + "  serviceAccountName: default\n", 10, "spec.serviceAccountName: Forbidden: a static pod cannot refer to an object of an API server"},
		"LongName":       {"the node's name is added", edit(t, "name: web", "name: "+strings.Repeat("a", 250)), 4, "with the node's name"},
		"SecretBase64":   {"", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {k: hunter2!}\n", 4, "data[k]: want base64: illegal base64 data at input byte 7"},
		"SecretType":     {"secret values are not shown", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: 12345}\n", 4, "stringData[k]: want text, got something else: put it in quotes"},
		"SecretKeys":     {"", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\ndata: {tls.crt: \"\"}\n", 5, "data[tls.key]: Required value"},
		"ConfigMapKey":   {"", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata: {a/b: \"\"}\n", 4, "data[a/b]: Invalid value"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, problems := ParseFile("/m/f.yaml", []byte(tc.text), "node1")
			if len(problems) != 1 {
				t.Fatalf("%s: got problems %v, want one", tc.reason, problems)
			}
			p := problems[0]
			if p.File != "/m/f.yaml" || p.Line != tc.line || !strings.Contains(p.Err.Error(), tc.want) {
				t.Errorf("%s: got line %d %q, want line %d %q", tc.reason, p.Line, p.Err, tc.line, tc.want)
			}
		})
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	text := goodPod + "  - {name: c, image: x, tty: 1}\n  - {nam: d}\n---\n" + edit(t, "    image: demo/busybox:1\n", "    ports: [{containerPort: 0}]\n")
	_, problems := ParseFile("/m/f.yaml", []byte(text), "node1")
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	want := []string{
		"/m/f.yaml:10: pod default/web: spec.containers[1].tty: want true or false, got 1",
		"/m/f.yaml:11: pod default/web: spec.containers[2].nam: unknown field (did you mean name?)",
		"/m/f.yaml:19: pod default/web: spec.containers[0].image: Required value",
		"/m/f.yaml:20: pod default/web: spec.containers[0].ports[0].containerPort: Required value",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTooLarge(t *testing.T) {
	cases := map[string]struct {
		size int
		want string
	}{
		"Document": {maxDocument + 1, "an API server accepts at most"},
		"File":     {maxFile + 1, "a manifest has at most"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, problems := ParseFile("f", []byte("#"+strings.Repeat("x", tc.size-1)), "n")
			if len(problems) != 1 || !strings.Contains(problems[0].Error(), tc.want) {
				t.Errorf("got %v, want %q", problems, tc.want)
			}
		})
	}
}

func TestTooMany(t *testing.T) {
	cases := map[string]struct {
		text string
		want int
		last string
	}{
		"Documents": {strings.Repeat("---\n", maxDocuments+1), 1, "a manifest has at most"},
		"Problems":  {strings.Repeat("text\n---\n", 1000), mostInFile + 2, "from here on the file was not read"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, problems := ParseFile("f", []byte(tc.text), "n")
			if len(problems) != tc.want || !strings.Contains(problems[len(problems)-1].Error(), tc.last) {
				t.Errorf("got %d problems, the last %v, want %d and %q", len(problems), problems[len(problems)-1], tc.want, tc.last)
			}
		})
	}
}

// FuzzParse looks for panics, endless work and files that are neither taken nor
// refused.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		goodPod, "a: &a [*a]\n", "---\n---\n{}", "{\"kind\":\"Pod\"}", "apiVersion: v1\nkind: List\nitems: [{}]\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==}\n", "<<: [{a: b}, *x]", "kind: Pod\n<<: &a {spec: *a}\napiVersion: v1\n",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a, uid: b, annotations: {c: d}}\nspec: {containers: [{name: c, image: 'x', resources: {limits: {cpu: 1e3}}}], volumes: [{name: v, emptyDir: {sizeLimit: 1Gi}}]}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, problems := ParseFile("/m/f.yaml", data, "n")
		// YAML has more kinds of line breaks than one.
		lines := 1
		for _, r := range string(data) {
			if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
				lines++
			}
		}
		for _, p := range problems {
			if p.Err == nil || p.File == "" || p.Line < 0 || p.Line > lines {
				t.Errorf("problem %+v", p)
			}
		}
		for _, p := range parsed.Pods {
			before := p.DeepCopy()
			Default(p)
			if diff := cmp.Diff(before, p); diff != "" {
				t.Errorf("defaulting twice changes a pod:\n%s", diff)
			}
			if errs := Validate(p); len(errs) > 0 {
				t.Errorf("a pod that was accepted is not valid: %v", errs)
			}
		}
	})
}
