package probe

import corev1 "k8s.io/api/core/v1"

// Result is what is known of a probe.
type Result int

// Unknown is neither: the probe has not answered often enough.
const (
	Unknown Result = iota
	Success
	Failure
)

// counter turns single answers into a result: as many in a row as the probe's
// thresholds ask for.
type counter struct {
	result Result
	last   bool
	run    int32 // answers like last, in a row
}

// add counts an answer and reports whether the result has changed.
func (c *counter) add(p *corev1.Probe, ok bool) bool {
	if c.run == 0 || c.last != ok {
		c.last, c.run = ok, 0
	}
	c.run++
	next, threshold := Failure, p.FailureThreshold
	if ok {
		next, threshold = Success, p.SuccessThreshold
	}
	if c.run < threshold || c.result == next {
		return false
	}
	c.result = next
	return true
}
