package probe

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestCounter(t *testing.T) {
	cases := map[string]struct {
		reason            string
		success, failures int32  // thresholds
		answers           string // + and -
		want              []Result
	}{
		"Ones": {
			reason:  "with thresholds of one each answer is the result",
			success: 1, failures: 1, answers: "+-+",
			want: []Result{Success, Failure, Success},
		},
		"NotYet": {
			reason:  "below the threshold nothing is known",
			success: 2, failures: 3, answers: "--+",
			want: []Result{Unknown, Unknown, Unknown},
		},
		"FailureThreshold": {
			reason:  "a result stays until enough answers in a row contradict it",
			success: 1, failures: 3, answers: "+----",
			want: []Result{Success, Success, Success, Failure, Failure},
		},
		"SuccessThreshold": {
			reason:  "the same in the other direction",
			success: 3, failures: 1, answers: "-+++",
			want: []Result{Failure, Failure, Failure, Success},
		},
		"Interrupted": {
			reason:  "a different answer starts the count anew",
			success: 1, failures: 3, answers: "+--+--",
			want: []Result{Success, Success, Success, Success, Success, Success},
		},
		"NoThreshold": {
			reason:  "a threshold that nobody defaulted counts as one",
			success: 0, failures: 0, answers: "+-",
			want: []Result{Success, Failure},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Probe{SuccessThreshold: tc.success, FailureThreshold: tc.failures}
			var c counter
			var got []Result
			for _, a := range tc.answers {
				before := c.result
				if changed := c.add(p, a == '+'); changed != (c.result != before) {
					t.Errorf("answer %d: changed is %t, result went from %v to %v", len(got), changed, before, c.result)
				}
				got = append(got, c.result)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}
