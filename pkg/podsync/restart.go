package podsync

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// Annotations which tune the crash-loop delay of one pod; both take a duration.
const (
	AnnotationInitialBackOff = "nodeagent.dev/restart-initial-backoff"
	AnnotationMaxBackOff     = "nodeagent.dev/restart-max-backoff"
)

// calmAfter is how long a container must have run for its earlier crashes to be
// forgotten.
const calmAfter = 10 * time.Minute

// BackOff is a delay which doubles with each failure.
type BackOff struct {
	Initial, Max time.Duration
}

// after is the delay that follows the nth failure in a row.
func (b BackOff) after(n int) time.Duration {
	d := b.Initial
	for i := 1; i < n && d < b.Max; i++ {
		d *= 2
	}
	if n < 1 {
		return 0
	}
	return min(d, b.Max)
}

// forPod is the node's crash-loop delay as the pod's annotations change it.
// A maximum below the initial delay wins. An annotation that is no duration is
// reported and has no effect.
func (b BackOff) forPod(pod *corev1.Pod) (BackOff, error) {
	out := b
	for name, field := range map[string]*time.Duration{AnnotationInitialBackOff: &out.Initial, AnnotationMaxBackOff: &out.Max} {
		text, set := pod.Annotations[name]
		if !set {
			continue
		}
		d, err := time.ParseDuration(text)
		if err == nil && d < 0 {
			err = fmt.Errorf("%q is negative", text)
		}
		if err != nil {
			return b, fmt.Errorf("annotation %s: %w", name, err)
		}
		*field = d
	}
	return out, nil
}

// verdict is what an exit means for a container.
type verdict int

const (
	final      verdict = iota // it is not started again
	again                     // it is
	everything                // and so is every other container of the pod
)

// afterExit applies the container's own rules, then its policy, then the pod's.
func afterExit(pod *corev1.Pod, c *corev1.Container, code int32) verdict {
	for _, r := range c.RestartPolicyRules {
		if !ruleMatches(r, code) {
			continue
		}
		if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
			return everything
		}
		return again
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	} else if isInit(pod, c.Name) && policy != corev1.RestartPolicyNever {
		policy = corev1.RestartPolicyOnFailure // success is what the pod waits for
	}
	switch {
	case policy == corev1.RestartPolicyNever, policy == corev1.RestartPolicyOnFailure && code == 0:
		return final
	default: // Always, which is also what "" means
		return again
	}
}

func ruleMatches(r corev1.ContainerRestartRule, code int32) bool {
	if r.ExitCodes == nil {
		return false
	}
	listed := slices.Contains(r.ExitCodes.Values, code)
	return listed == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn)
}

// ranLong says whether an attempt lasted long enough to be called healthy.
func ranLong(c *cri.Container) bool {
	return !c.StartedAt.IsZero() && c.FinishedAt.Sub(c.StartedAt) >= calmAfter
}

// crashes counts the exits in a row up to and with this one, given the attempt
// with which the series began. The first exit is restarted at once.
func crashes(c *cri.Container, seriesStart int) int {
	if ranLong(c) {
		seriesStart = c.Attempt
	}
	return max(1, c.Attempt-seriesStart+1)
}

// restartAt is when an exited attempt may be replaced, and after what delay.
func restartAt(c *cri.Container, seriesStart int, b BackOff) (at time.Time, delay time.Duration) {
	delay = b.after(crashes(c, seriesStart) - 1)
	return c.FinishedAt.Add(delay), delay
}

// isSidecar says whether an init container stays up beside the main ones.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func isInit(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}
