package podsync

import (
	corev1 "k8s.io/api/core/v1"
)

// tellWaiting makes an event of a container's start being put off, once each
// time it begins to be.
func (w *worker) tellWaiting(pod *corev1.Pod, plan Plan) {
	now := map[string]string{}
	for name, state := range plan.Waiting {
		now[name] = state.Reason
		if w.waits[name] == state.Reason {
			continue
		}
		switch state.Reason {
		case "CrashLoopBackOff":
			w.warnOf(name, "BackOff", "Back-off restarting failed container %s in pod %s", name, podFullName(pod))
		case "ImagePullBackOff":
			if c := specOf(pod, name); c != nil {
				w.noteOf(name, "BackOff", "Back-off pulling image %q", c.Image)
			}
			w.warnOf(name, "Failed", "Error: ImagePullBackOff")
		}
	}
	w.waits = now
}
