package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCollect(t *testing.T) {
	cases := map[string]struct {
		reason string
		events string
		want   report
		shown  string
	}{
		"Leaves": {
			reason: "subtests count, the test around them does not",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`,
			want:  report{Stage: "s", Passed: 1},
			shown: "ok  \tp\t0.1s",
		},
		"Failure": {
			reason: "a failing test's output is shown",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: boom\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}
`,
			want:  report{Stage: "s", Failed: []string{"p.TestA"}},
			shown: "boom",
		},
		"Skip": {
			reason: "the reason goes into the closing list",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: needs cgroup v2: really\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
`,
			want: report{Stage: "s", Skipped: []skip{{Test: "p.TestA", Reason: "needs cgroup v2: really"}}},
		},
		"Crash": {
			reason: "a test that a panic left open has failed",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}
{"Action":"fail","Package":"p"}
`,
			want:  report{Stage: "s", Failed: []string{"p.TestA"}},
			shown: "panic: oh",
		},
		"Build": {
			reason: "a package that does not compile is a failure, with the compiler's words",
			events: `{"ImportPath":"p","Action":"build-output","Output":"a.go:1: syntax\n"}
{"Action":"fail","Package":"p"}
`,
			want:  report{Stage: "s", Failed: []string{"p.(build or setup)"}},
			shown: "syntax",
		},
		"Noise": {
			reason: "a console says other things as well",
			events: "[    0.1] Linux version\n",
			want:   report{Stage: "s"},
			shown:  "Linux version",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c := newCollector(&out)
			if err := c.read(strings.NewReader(tc.events)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, c.report("s", time.Duration(0))); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
			if !strings.Contains(out.String(), tc.shown) {
				t.Errorf("%s: want %q in\n%s", tc.reason, tc.shown, out.String())
			}
		})
	}
}

func TestSummarise(t *testing.T) {
	skipped := report{Stage: "vm", Passed: 2, Skipped: []skip{{Test: "p.TestA", Reason: "no swap"}}}
	cases := map[string]struct {
		reason  string
		reports []report
		allowed string
		strict  bool
		want    bool
		text    string
	}{
		"Good":       {reason: "nothing skipped", reports: []report{{Stage: "unit", Passed: 3}}, strict: true, want: true, text: "3 passed, 0 failed, 0 skipped"},
		"Required":   {reason: "CI fails on it", reports: []report{skipped}, strict: true, text: "REQUIRED vm: p.TestA: no swap"},
		"ByHand":     {reason: "told, not failed", reports: []report{skipped}, want: true, text: "REQUIRED vm: p.TestA: no swap"},
		"Allowed":    {reason: "listed with a reason in the file", reports: []report{skipped}, allowed: "^p.TestA: no swap$", strict: true, want: true, text: "allowed"},
		"Failed":     {reason: "a failure is named", reports: []report{{Stage: "unit", Failed: []string{"p.TestB"}}}, text: "failed: p.TestB"},
		"NotThere":   {reason: "a stage that said nothing has failed", reports: []report{{Stage: "vm", Error: "did not report"}}, text: "0 passed, 1 failed, 0 skipped"},
		"FailedToo":  {reason: "one bad stage spoils the run", reports: []report{{Passed: 1}, {Failed: []string{"x"}}}, text: "1 passed, 1 failed, 0 skipped"},
		"SkippedSum": {reason: "the last line counts all stages", reports: []report{skipped, {Passed: 1}}, want: true, text: "3 passed, 0 failed, 1 skipped"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var allowed []*regexp.Regexp
			if tc.allowed != "" {
				allowed = append(allowed, regexp.MustCompile(tc.allowed))
			}
			var out bytes.Buffer
			if got := summarise(&out, tc.reports, allowed, tc.strict); got != tc.want {
				t.Errorf("%s: good = %t, want %t", tc.reason, got, tc.want)
			}
			if !strings.Contains(out.String(), tc.text) {
				t.Errorf("%s: want %q in\n%s", tc.reason, tc.text, out.String())
			}
		})
	}
}
