package podsync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestRestartAt(t *testing.T) {
	node := BackOff{Initial: 10 * time.Second, Max: 5 * time.Minute}
	cases := map[string]struct {
		reason  string
		attempt int
		series  int
		ran     time.Duration
		backOff BackOff
		want    time.Duration
	}{
		"First":           {reason: "the first exit is restarted at once", backOff: node},
		"Second":          {reason: "then the initial delay", attempt: 1, backOff: node, want: 10 * time.Second},
		"Third":           {reason: "then twice as long", attempt: 2, backOff: node, want: 20 * time.Second},
		"Sixth":           {reason: "and again", attempt: 5, backOff: node, want: 160 * time.Second},
		"Seventh":         {reason: "up to the maximum", attempt: 6, backOff: node, want: 5 * time.Minute},
		"Thousandth":      {reason: "and never beyond", attempt: 999, backOff: node, want: 5 * time.Minute},
		"LaterSeries":     {reason: "only exits of this series count", attempt: 30, series: 29, backOff: node, want: 10 * time.Second},
		"JustNotCalm":     {reason: "just under ten minutes is not long", attempt: 4, ran: calmAfter - 1, backOff: node, want: 80 * time.Second},
		"Calm":            {reason: "ten minutes end a series", attempt: 4, ran: calmAfter, backOff: node},
		"Off":             {reason: "a delay of zero is no delay", attempt: 9, backOff: BackOff{}},
		"SeriesAhead":     {reason: "a series that begins with the next attempt has no crash yet", attempt: 3, series: 4, backOff: node},
		"MaxBelowInitial": {reason: "the maximum wins", attempt: 1, backOff: BackOff{Initial: time.Minute, Max: time.Second}, want: time.Second},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := cri.Container{Attempt: tc.attempt, StartedAt: now.Add(-tc.ran), FinishedAt: now}
			at, delay := restartAt(&c, tc.series, tc.backOff)
			if delay != tc.want || at != now.Add(tc.want) {
				t.Errorf("%s: want %s, got %s (at %s)", tc.reason, tc.want, delay, at)
			}
		})
	}
}

func TestBackOffForPod(t *testing.T) {
	node := BackOff{Initial: 10 * time.Second, Max: 5 * time.Minute}
	cases := map[string]struct {
		reason      string
		annotations map[string]string
		want        BackOff
		err         bool
	}{
		"None":     {reason: "the node's delay holds", want: node},
		"Initial":  {reason: "each end can be set alone", annotations: map[string]string{AnnotationInitialBackOff: "500ms"}, want: BackOff{500 * time.Millisecond, 5 * time.Minute}},
		"Max":      {reason: "each end can be set alone", annotations: map[string]string{AnnotationMaxBackOff: "30s"}, want: BackOff{10 * time.Second, 30 * time.Second}},
		"Zero":     {reason: "a pod may ask for no delay at all", annotations: map[string]string{AnnotationInitialBackOff: "0"}, want: BackOff{0, 5 * time.Minute}},
		"Nonsense": {reason: "what is no duration has no effect", annotations: map[string]string{AnnotationMaxBackOff: "soon"}, want: node, err: true},
		"Negative": {reason: "nor has a negative one", annotations: map[string]string{AnnotationInitialBackOff: "-1s", AnnotationMaxBackOff: "1s"}, want: node, err: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Annotations = tc.annotations
			got, err := node.forPod(pod)
			if d := cmp.Diff(tc.want, got); d != "" || (err != nil) != tc.err {
				t.Errorf("%s: err %v (-want +got):\n%s", tc.reason, err, d)
			}
		})
	}
}

func TestAfterExit(t *testing.T) {
	notIn := []corev1.ContainerRestartRule{{
		Action: corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
			Operator: corev1.ContainerRestartRuleOnExitCodesOpNotIn, Values: []int32{0},
		},
	}}
	cases := map[string]struct {
		reason string
		policy corev1.RestartPolicy
		own    *corev1.ContainerRestartPolicy
		rules  []corev1.ContainerRestartRule
		init   bool
		code   int32
		want   verdict
	}{
		"Always":              {reason: "even success", policy: corev1.RestartPolicyAlways, want: again},
		"Unset":               {reason: "no policy is Always", want: again},
		"OnFailureFails":      {reason: "failure", policy: corev1.RestartPolicyOnFailure, code: 1, want: again},
		"OnFailureSucceeds":   {reason: "success is final", policy: corev1.RestartPolicyOnFailure, want: final},
		"Never":               {reason: "whatever the code", policy: corev1.RestartPolicyNever, code: 1, want: final},
		"InitAlways":          {reason: "an init container's success is final in any pod", policy: corev1.RestartPolicyAlways, init: true, want: final},
		"InitFails":           {reason: "its failure is not", policy: corev1.RestartPolicyAlways, init: true, code: 1, want: again},
		"Sidecar":             {reason: "a sidecar always restarts", policy: corev1.RestartPolicyNever, own: new(corev1.ContainerRestartPolicyAlways), init: true, want: again},
		"OwnOnFailure":        {reason: "the container's policy wins", policy: corev1.RestartPolicyNever, own: new(corev1.ContainerRestartPolicyOnFailure), code: 3, want: again},
		"RuleNotIn":           {reason: "any code that is not listed", own: new(corev1.ContainerRestartPolicyNever), rules: notIn, code: 7, want: again},
		"RuleNotInListed":     {reason: "a listed code falls through to the policy", own: new(corev1.ContainerRestartPolicyNever), rules: notIn, want: final},
		"RuleAll":             {reason: "the first rule that matches decides", own: new(corev1.ContainerRestartPolicyNever), rules: append(rule(corev1.ContainerRestartRuleActionRestartAllContainers, 7), notIn...), code: 7, want: everything},
		"RuleWithoutCodes":    {reason: "a rule without a condition never matches", own: new(corev1.ContainerRestartPolicyNever), rules: []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart}}, code: 7, want: final},
		"OwnAlwaysMain":       {reason: "a main container of its own policy is no sidecar but restarts", policy: corev1.RestartPolicyNever, own: new(corev1.ContainerRestartPolicyAlways), want: again},
		"InitOwnNever":        {reason: "an init container may refuse restarts", policy: corev1.RestartPolicyAlways, own: new(corev1.ContainerRestartPolicyNever), init: true, code: 1, want: final},
		"SignalIsJustANumber": {reason: "137 is a failure like any other", policy: corev1.RestartPolicyOnFailure, code: 137, want: again},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.RestartPolicy = tc.policy
			c := &pod.Spec.Containers[0]
			if tc.init {
				withInit(pod, "init")
				c = &pod.Spec.InitContainers[0]
			}
			c.RestartPolicy, c.RestartPolicyRules = tc.own, tc.rules
			if got := afterExit(pod, c, tc.code); got != tc.want {
				t.Errorf("%s: want %d, got %d", tc.reason, tc.want, got)
			}
		})
	}
}
