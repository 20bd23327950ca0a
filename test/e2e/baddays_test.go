//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// TestDrain evicts what the node runs, with its grace, and lets nothing new in.
func TestDrain(t *testing.T) {
	s := newSerialSpace(t)
	s.create(newPod("first", forever))
	uid := s.awaitReady("first").UID
	t.Cleanup(func() { s.kubectlCommand(context.WithoutCancel(t.Context()), "uncordon", cluster.node).Run() }) //nolint:errcheck // the test may have done it
	// Of a node that others use, only this test's pods.
	s.kubectl("drain", cluster.node, "--force", "--pod-selector=app=first", "--ignore-daemonsets", "--timeout=3m")
	s.awaitGone("first", uid)
	s.create(newPod("second", forever))
	s.awaitPod("second", "is not scheduled", func(p *corev1.Pod) bool { return condition(p, corev1.PodScheduled) == corev1.ConditionFalse })
	s.kubectl("uncordon", cluster.node)
	s.awaitReady("second")
}

// TestSameNameWhileTheOldOneStops gives a pod's name to another while the node
// still stops the first: both hold the same port of the host, so that the second
// works only once the first has really ended.
func TestSameNameWhileTheOldOneStops(t *testing.T) {
	s := newSpace(t)
	pod := func(script string) *corev1.Pod {
		return newPod("one", script, func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	}
	const port = `-p 127.0.0.1:39483 -h /tmp`
	s.create(pod(`trap "sleep 3; exit 0" TERM; httpd -f ` + port + ` & touch /tmp/up; while :; do sleep 1; done`))
	first := s.awaitReady("one")
	s.kubectl("delete", "pod", "one", "--force", "--grace-period=0")
	s.create(pod(`until httpd ` + port + `; do sleep 1; done; echo second; ` + forever))
	second := s.awaitReady("one")
	if second.UID == first.UID || status(second, "main").ContainerID == status(first, "main").ContainerID {
		t.Errorf("the second pod has the first's container %s", status(first, "main").ContainerID)
	}
	s.await("the second has the port", func() error {
		if out := s.logs("one", ""); !strings.Contains(out, "second") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
}

// TestLargeSecret mounts the largest secret that the API server takes.
func TestLargeSecret(t *testing.T) {
	s := newSpace(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 65_000) // just below 1 MiB
	if _, err := cluster.client.CoreV1().Secrets(s.name).Create(s.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "large"}, Data: map[string][]byte{"data": data},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.create(newPod("reader", "wc -c </large/data", never, func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "large", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "large"}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "large", MountPath: "/large"}}
	}))
	s.awaitPhase("reader", corev1.PodSucceeded)
	if got := strings.TrimSpace(s.logs("reader", "")); got != fmt.Sprint(len(data)) {
		t.Errorf("the pod reads %s bytes, want %d", got, len(data))
	}
}

// TestExecThatNeverReads floods a client that does not read: neither the pod nor
// another client notices.
func TestExecThatNeverReads(t *testing.T) {
	s := newSpace(t)
	s.create(newPod("flood", forever))
	s.awaitReady("flood")
	req := cluster.client.CoreV1().RESTClient().Post().Namespace(s.name).Resource("pods").Name("flood").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"cat", "/dev/zero"}, Stdout: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(cluster.rest, "GET", req.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	reader, writer := io.Pipe() // a write waits for a reader
	done := make(chan error, 1)
	go func() { done <- executor.StreamWithContext(s.ctx, remotecommand.StreamOptions{Stdout: writer}) }()
	if _, err := io.ReadFull(reader, make([]byte, 1<<20)); err != nil { // it runs; from here on nobody reads
		t.Fatal(err)
	}
	if got := s.sh("flood", "echo hello"); got != "hello\n" {
		t.Errorf("another client reads %q", got)
	}
	if p := s.get("flood"); status(p, "main").RestartCount != 0 || !ready(p) {
		t.Errorf("status %+v, want it undisturbed", p.Status)
	}
	uid := s.get("flood").UID
	s.kubectl("delete", "pod", "flood", "--wait=false")
	s.awaitGone("flood", uid)
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	<-done //nolint:errcheck // with whatever error: its container is gone
}
