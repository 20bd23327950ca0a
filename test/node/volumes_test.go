//go:build integration

package node

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// volumePod uses every kind of volume, as users that are not root.
const volumePod = `apiVersion: v1
kind: Pod
metadata: {name: vol, labels: {app: vol}}
spec:
  terminationGracePeriodSeconds: 2
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
  - name: c
    image: demo/busybox:1
    command: [sh, -c, "trap exit TERM; while :; do sleep 0.1; done"]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    volumeMounts:
    - {name: cfg, mountPath: /cfg}
    - {name: cfg, mountPath: /one/file, subPath: a}
    - {name: pw, mountPath: /pw}
    - {name: all, mountPath: /all}
    - {name: mem, mountPath: /mem}
    - {name: disk, mountPath: /disk}
    - {name: disk, mountPath: /sub, subPath: new/deep}
    - {name: disk, mountPath: /expr, subPathExpr: of-$(NAME)}
    - {name: host, mountPath: /host, readOnly: true}
    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  volumes:
  - {name: cfg, configMap: {name: cfg}}
  - {name: pw, secret: {secretName: pw, defaultMode: 0400}}
  - name: all
    projected:
      sources:
      - configMap: {name: cfg, items: [{key: a, path: cfg/a}]}
      - secret: {name: pw}
      - secret: {name: none, optional: true}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  - {name: mem, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: disk, emptyDir: {}}
  - {name: host, hostPath: {path: %s, type: Directory}}
`

func objectsFile(a string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cfg}\ndata: {a: %q, b: \"same as %s\"}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: pw}\nstringData: {key: s3cret}\n", a, a)
}

func TestVolumes(t *testing.T) {
	m := newMachine(t, "", "")
	if err := os.WriteFile(m.dir+"/canary", []byte("here\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.manifest("vol.yaml", fmt.Sprintf(volumePod, m.dir))
	m.start()
	m.await("vol", "waiting for its objects", func(p *corev1.Pod) bool { return !ready(p) })
	m.manifest("objects.yaml", objectsFile("one"))
	pod := m.await("vol", "ready once they are there", ready)
	sh := func(script string) string {
		t.Helper()
		out, err := m.try("exec", "vol", "--", "sh", "-c", script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := map[string]string{
		"cat /cfg/a /one/file /all/cfg/a": "oneoneone",
		"cat /pw/key /all/key":            "s3crets3cret",
		"stat -Lc %a:%g /pw/key":          "440:2000\n",
		"cat /all/labels":                 `app="vol"`,
		"stat -c %a:%g /disk /mem":        "2777:2000\n3777:2000\n",
		"echo hi > /sub/f; cat /disk/new/deep/f; touch /expr/g; ls /disk/of-vol-node": "hi\ng\n",
		"cat /host/canary":                          "here\n",
		"df -k /mem | tail -n 1 | awk '{print $2}'": "1024\n",
		"for d in cfg pw all host; do touch /$d/x 2>/dev/null || echo ro; done": "ro\nro\nro\nro\n",
		"head -c 2000000 /dev/zero > /mem/x 2>/dev/null || echo full":           "full\n",
	}
	for script, w := range want {
		if d := cmp.Diff(w, sh(script)); d != "" {
			t.Errorf("%s (-want +got):\n%s", script, d)
		}
	}

	t.Run("AnEditedConfigMapReachesThePod", func(t *testing.T) {
		m.manifest("objects.yaml", objectsFile("two"))
		m.eventually("the new content is seen", func() error {
			out, err := m.try("exec", "vol", "--", "sh", "-c", "d=$(readlink /cfg/..data); cat /cfg/$d/a /cfg/$d/b")
			if err != nil {
				return err
			}
			if out != "twosame as two" && out != "onesame as one" {
				t.Fatalf("a mixture was seen: %q", out)
			}
			return in(out, "twosame as two")
		})
		if got := sh("cat /one/file /all/cfg/a"); !strings.HasPrefix(got, "one") {
			t.Errorf("a subPath shows %q: it is a mount of the file as it was", got)
		}
	})
	t.Run("SurvivesAnAgent", func(t *testing.T) {
		sh("echo mine > /disk/mine; echo mine > /mem/mine 2>/dev/null; rm /mem/x; echo mine > /mem/mine")
		m.kill()
		m.start()
		again := m.await("vol", "ready", ready)
		if d := cmp.Diff(containerIDs(pod), containerIDs(again)); d != "" {
			t.Errorf("containers are not the same:\n%s", d)
		}
		if got := sh("cat /disk/mine /mem/mine"); got != "mine\nmine\n" {
			t.Errorf("content is %q", got)
		}
	})
	t.Run("LeavesNothing", func(t *testing.T) {
		m.removeManifest("vol.yaml")
		m.awaitGone("vol")
		if exists(fmt.Sprintf("%s/root/pods/%s", m.dir, pod.UID)) || !exists(m.dir+"/canary") {
			t.Error("the pod's directory is still there, or the host's file is not")
		}
	})
}

func TestSizeLimitEvicts(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("other.yaml", sleeper("other", "c"))
	m.manifest("hog.yaml", `apiVersion: v1
kind: Pod
metadata: {name: hog}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: demo/busybox:1
    command: [sh, -c, "head -c 3000000 /dev/zero > /data/x; trap exit TERM; while :; do sleep 0.1; done"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]
`)
	m.start()
	hog := m.await("hog", "evicted", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if hog.Status.Reason != "Evicted" || hog.Status.Message != `Usage of EmptyDir volume "data" exceeds the limit "1Mi". ` {
		t.Errorf("reason %q, message %q", hog.Status.Reason, hog.Status.Message)
	}
	m.await("other", "untouched", ready)
	m.kill()
	m.start()
	m.await("hog", "still evicted", func(p *corev1.Pod) bool { return p.Status.Reason == "Evicted" })
	m.eventually("what filled the disk is gone", func() error {
		if exists(fmt.Sprintf("%s/root/pods/%s/volumes/kubernetes.io~empty-dir/data", m.dir, hog.UID)) {
			return errors.New("the volume is still there")
		}
		return nil
	})
}
