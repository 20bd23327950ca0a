package podsync

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// now is when all pure tests take place.
var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// basePod is a pod with one container and nothing special.
func basePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "uid-web", Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: new(int64(30)),
			Containers:                    []corev1.Container{{Name: "main", Image: "busybox:1"}},
		},
	}
}

// withInit adds ordinary init containers, withSidecars restartable ones.
func withInit(pod *corev1.Pod, names ...string) {
	for _, n := range names {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: n, Image: "busybox:1"})
	}
}

func withSidecars(pod *corev1.Pod, names ...string) {
	for _, n := range names {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{
			Name: n, Image: "busybox:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		})
	}
}

func withContainers(pod *corev1.Pod, names ...string) {
	for _, n := range names {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: n, Image: "busybox:1"})
	}
}

// baseHave is a pod whose sandbox is up, whose images are there for the first
// attempt, and in which no container has been started yet.
func baseHave(pod *corev1.Pod) *Have {
	h := &Have{
		Pod: cri.Pod{UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name, Sandbox: &cri.Sandbox{
			ID: "sb1", Ready: true, IPs: []string{"10.88.0.7"}, CreatedAt: now.Add(-time.Hour),
		}},
		Exists: true, Started: now.Add(-time.Hour), NodeIPs: []string{"192.0.2.1"},
		Cgroup: true, Volumes: true,
		Images: map[string]int{}, Pulling: map[string]string{}, Probes: map[string]Health{}, Busy: map[string]string{},
		Held: map[string]Held{}, Series: map[string]int{}, Replace: map[string]Replace{},
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			h.Images[c.Name] = 0
		}
	}
	return h
}

// add puts an attempt in front of the older ones of its name.
func (h *Have) add(c cri.Container) *cri.Container {
	h.Pod.Containers = append([]cri.Container{c}, h.Pod.Containers...)
	return &h.Pod.Containers[0]
}

// attempt is the nth attempt of a container in the base sandbox.
func attempt(name string, n int) cri.Container {
	return cri.Container{
		ID: id(name, n), Name: name, Attempt: n, Image: "busybox:1", ImageRef: "busybox@sha256:1",
		SpecHash:  origin{Sandbox: "sb1", Hash: hashOf(name)}.String(),
		CreatedAt: now.Add(-time.Minute), StartedAt: now.Add(-time.Minute),
	}
}

func hashOf(name string) string {
	return containerHash(&corev1.Container{Name: name, Image: "busybox:1"})
}

func id(name string, n int) string { return name + "-" + string(rune('0'+n)) }

// running is a healthy running attempt.
func (h *Have) running(name string, n int) *cri.Container {
	c := attempt(name, n)
	c.State = cri.Running
	h.Probes[c.ID] = Health{Started: true, Ready: true}
	h.Images[name] = n
	return h.add(c)
}

// exited is an attempt that ended this very moment.
func (h *Have) exited(name string, n int, code int32) *cri.Container {
	c := attempt(name, n)
	c.State, c.ExitCode, c.FinishedAt, c.Reason = cri.Exited, code, now, "Error"
	if code == 0 {
		c.Reason = "Completed"
	}
	h.Images[name] = n + 1
	return h.add(c)
}

// start is the step that starts the nth attempt in the base sandbox.
func start(name string, n int) StartContainer {
	return StartContainer{Container: name, Attempt: n, Origin: origin{Sandbox: "sb1", Hash: hashOf(name)}.String()}
}
