//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/remotecommand"
)

// space is a namespace of one test, with the verbs that tests need. A verb that
// does not succeed ends the test.
type space struct {
	*testing.T
	ctx  context.Context //nolint:containedctx // the test's own, which a T carries as well
	name string
}

// newSpace makes a namespace for a test that runs beside others.
func newSpace(t *testing.T) *space {
	t.Helper()
	t.Parallel()
	return newSerialSpace(t)
}

// newSerialSpace makes a namespace for a test that runs alone.
func newSerialSpace(t *testing.T) *space {
	t.Helper()
	s := &space{T: t, ctx: t.Context()}
	ns, err := cluster.client.CoreV1().Namespaces().Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-", Labels: map[string]string{namespaceLabel: "true"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.name = ns.Name
	t.Cleanup(s.remove)
	s.await("the namespace has a service account", func() error {
		_, err := cluster.client.CoreV1().ServiceAccounts(s.name).Get(s.ctx, "default", metav1.GetOptions{})
		return err
	})
	return s
}

// remove shows what a failed test left, and deletes the namespace. Nobody waits
// for its end: suite.close does.
func (s *space) remove() {
	ctx := context.WithoutCancel(s.ctx)
	if s.Failed() {
		for _, args := range [][]string{{"describe", "pods"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
			out, err := s.kubectlCommand(ctx, args...).CombinedOutput()
			s.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if err := ignoreNotFound(cluster.client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{})); err != nil {
		s.Error(err)
	}
}

// await waits until ok has no objection.
func (s *space) await(what string, ok func() error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := until(ctx, what, ok); err != nil {
		s.Fatal(err)
	}
}

func (s *space) pods() corev1client.PodInterface { return cluster.client.CoreV1().Pods(s.name) }

// create creates a pod.
func (s *space) create(pod *corev1.Pod) *corev1.Pod {
	s.Helper()
	created, err := s.pods().Create(s.ctx, pod, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return created
}

// get reads a pod.
func (s *space) get(name string) *corev1.Pod {
	s.Helper()
	pod, err := s.pods().Get(s.ctx, name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return pod
}

// awaitPod waits until a pod is as ok says, and returns it.
func (s *space) awaitPod(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	s.Helper()
	var last *corev1.Pod
	s.await("pod "+name+" "+what, func() error {
		pod, err := s.pods().Get(s.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		last = pod
		if !ok(pod) {
			return fmt.Errorf("its status is %+v", pod.Status)
		}
		return nil
	})
	return last
}

// awaitReady waits until a pod is ready.
func (s *space) awaitReady(name string) *corev1.Pod {
	s.Helper()
	return s.awaitPod(name, "is ready", ready)
}

// awaitPhase waits until a pod is in a phase.
func (s *space) awaitPhase(name string, phase corev1.PodPhase) *corev1.Pod {
	s.Helper()
	return s.awaitPod(name, "is "+string(phase), func(p *corev1.Pod) bool { return p.Status.Phase == phase })
}

// awaitGone waits until a pod, or another that has taken its name, is not there.
func (s *space) awaitGone(name string, uid types.UID) {
	s.Helper()
	s.await("pod "+name+" is gone", func() error {
		pod, err := s.pods().Get(s.ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && pod.UID != uid:
			return nil
		case err != nil:
			return err
		default:
			return fmt.Errorf("its status is %+v", pod.Status)
		}
	})
}

// awaitEvent waits for an event of a pod, and returns its message.
func (s *space) awaitEvent(pod *corev1.Pod, reason string) string {
	s.Helper()
	var message string
	s.await("event "+reason+" of pod "+pod.Name, func() error {
		list, err := cluster.client.CoreV1().Events(s.name).List(s.ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID) + ",reason=" + reason})
		if err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return fmt.Errorf("there is none")
		}
		message = list.Items[0].Message
		return nil
	})
	return message
}

// logs returns what a container has written, its only one if the name is empty.
func (s *space) logs(pod, container string) string {
	s.Helper()
	out, err := s.pods().GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(s.ctx)
	if err != nil {
		s.Fatalf("logs of %s: %v", pod, err)
	}
	return string(out)
}

// exec runs a command in a container, the only one if the name is empty, and
// returns what it printed.
func (s *space) exec(pod, container string, command ...string) string {
	s.Helper()
	out, err := s.tryExec(pod, container, command...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// sh is exec of a shell script in the only container.
func (s *space) sh(pod, script string) string {
	s.Helper()
	return s.exec(pod, "", "sh", "-c", script)
}

func (s *space) tryExec(pod, container string, command ...string) (string, error) {
	req := cluster.client.CoreV1().RESTClient().Post().Namespace(s.name).Resource("pods").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(cluster.rest, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(s.ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return stdout.String(), fmt.Errorf("exec %v in %s: %w: %s%s", command, pod, err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// kubectl runs kubectl in the namespace and returns what it printed.
func (s *space) kubectl(args ...string) string {
	s.Helper()
	cmd := s.kubectlCommand(s.ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

func (s *space) kubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, cluster.kubectl, append([]string{"--kubeconfig", cluster.kubeconfig, "--namespace", s.name}, args...)...)
}
