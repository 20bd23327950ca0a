//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// debug runs kubectl debug on a pod, with input that must end the session, and
// returns what it printed. The input stays open: its end would end the session first.
func (s *space) debug(input string, args ...string) string {
	s.Helper()
	cmd := s.kubectlCommand(s.ctx, append([]string{"debug", "--image=" + cluster.image, "--image-pull-policy=IfNotPresent", "--profile=general"}, args...)...)
	in, keyboard, err := os.Pipe()
	if err != nil {
		s.Fatal(err)
	}
	defer in.Close()
	defer keyboard.Close()
	if _, err := keyboard.WriteString(input); err != nil { // a pipe has room for it
		s.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = in, &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("kubectl debug %v: %v\n%s%s", args, err, out, &stderr)
	}
	return string(out)
}

// TestDebug looks into a running container with kubectl debug.
func TestDebug(t *testing.T) {
	s := newSpace(t)
	s.create(newPod("web", "hostname > /only-here; exec sleep 12345"))
	s.awaitReady("web")

	// The session sees its target's processes, and through them its files.
	out := s.debug("tr '\\0' ' ' </proc/1/cmdline; cat /proc/1/root/only-here; exit 3\n", "web", "-i", "-c", "look", "--target=main", "--", "sh")
	if !strings.Contains(out, "sleep 12345") || !strings.Contains(out, "web\n") {
		t.Errorf("want the target's command and its file, got %q", out)
	}
	pod := s.awaitPod("web", "has the debugger's end", func(p *corev1.Pod) bool {
		c := status(p, "look")
		return c != nil && c.State.Terminated != nil
	})
	if c := status(pod, "look"); c.State.Terminated.ExitCode != 3 || c.RestartCount != 0 || c.Ready {
		t.Errorf("the debugger ended by itself and is not started again: %+v", c)
	}
	if main := status(pod, "main"); pod.Status.Phase != corev1.PodRunning || !ready(pod) || main.RestartCount != 0 {
		t.Errorf("the pod does not notice: %+v", pod.Status)
	}

	// Another stays, can be entered and has a log, and ends with its pod.
	s.kubectl("debug", "web", "--image="+cluster.image, "--image-pull-policy=IfNotPresent", "--profile=general", "-c", "stay", "--", "sh", "-c", "echo here; "+forever)
	s.awaitPod("web", "has a debugger that runs", func(p *corev1.Pod) bool { c := status(p, "stay"); return c != nil && c.State.Running != nil })
	if got := s.logs("web", "stay"); got != "here\n" {
		t.Errorf("its log is %q", got)
	}
	if got := s.exec("web", "stay", "sh", "-c", "hostname; cat /proc/1/cmdline"); !strings.HasPrefix(got, "web\nsh\x00-c\x00echo here") {
		t.Errorf("without a target it has the pod's name and only its own processes, got %q", got)
	}
	if got := s.kubectl("describe", "pod", "web"); !strings.Contains(got, "Ephemeral Containers:") {
		t.Errorf("kubectl describe shows no ephemeral containers:\n%s", got)
	}
	uid := s.get("web").UID
	s.kubectl("delete", "pod", "web", "--wait=false")
	s.awaitGone("web", uid)
}

// TestDebugStuckInit looks into a pod that gets nowhere.
func TestDebugStuckInit(t *testing.T) {
	s := newSpace(t)
	s.create(newPod("stuck", forever, func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{container("wait", "until [ -e /go ]; do sleep 0.2; done")}
	}))
	s.awaitPod("stuck", "waits in its init container", func(p *corev1.Pod) bool { c := status(p, "wait"); return c != nil && c.State.Running != nil })
	s.debug("touch /proc/1/root/go; exit\n", "stuck", "-i", "-c", "help", "--target=wait", "--", "sh")
	s.awaitReady("stuck")
}
