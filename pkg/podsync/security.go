package podsync

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// checkNonRoot refuses a container which promises not to run as root when its
// user is root or cannot be known before it runs. imageUser is the image's USER.
func checkNonRoot(pod *corev1.Pod, c *corev1.Container, imageUser string) error {
	promised, uid := false, (*int64)(nil)
	if sc := pod.Spec.SecurityContext; sc != nil {
		promised = sc.RunAsNonRoot != nil && *sc.RunAsNonRoot
		uid = sc.RunAsUser
	}
	if sc := c.SecurityContext; sc != nil {
		if sc.RunAsNonRoot != nil {
			promised = *sc.RunAsNonRoot
		}
		if sc.RunAsUser != nil {
			uid = sc.RunAsUser
		}
	}
	if !promised {
		return nil
	}
	who := fmt.Sprintf("(pod: %q, container: %s)", podFullName(pod), c.Name)
	if uid != nil {
		if *uid == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy %s", who)
		}
		return nil
	}
	user, _, _ := strings.Cut(imageUser, ":")
	if user == "" {
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", who)
	}
	switch n, err := strconv.ParseUint(user, 10, 64); {
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", user, who)
	case n == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", who)
	case n > math.MaxInt32: // the kernel and the runtime would take it for another user, or for a name
		return fmt.Errorf("container has runAsNonRoot and image has a user (%s) out of range, cannot verify user is non-root %s", user, who)
	}
	return nil
}

// podFullName is how Kubernetes' messages name a pod.
func podFullName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
