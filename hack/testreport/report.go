package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// report is what one stage found.
type report struct {
	Stage   string   `json:"stage"`
	Seconds float64  `json:"seconds"`
	Passed  int      `json:"passed"`
	Failed  []string `json:"failed,omitempty"`
	Skipped []skip   `json:"skipped,omitempty"`
	Error   string   `json:"error,omitempty"` // the stage itself went wrong
}

type skip struct {
	Test   string `json:"test"`
	Reason string `json:"reason"`
}

func (s skip) String() string { return s.Test + ": " + s.Reason }

func (r report) bad() bool { return r.Error != "" || len(r.Failed) > 0 }

func (r report) String() string {
	state := "ok"
	if r.bad() {
		state = "FAIL"
	}
	line := fmt.Sprintf("%-4s %-12s %4d passed, %d failed, %d skipped in %.0f s",
		state, r.Stage, r.Passed, len(r.Failed), len(r.Skipped), r.Seconds)
	if r.Error != "" {
		line += ": " + r.Error
	}
	return line
}

// summarise prints the closing list and returns whether the whole run is good.
func summarise(out io.Writer, reports []report, allowed []*regexp.Regexp, strict bool) bool {
	good := true
	var passed, failed, skipped int
	fmt.Fprintln(out, "\n=== summary")
	for _, r := range reports {
		fmt.Fprintln(out, r)
		for _, f := range r.Failed {
			fmt.Fprintln(out, "     failed:", f)
		}
		good = good && !r.bad()
		passed, failed, skipped = passed+r.Passed, failed+len(r.Failed), skipped+len(r.Skipped)
		if r.Error != "" && len(r.Failed) == 0 {
			failed++
		}
	}
	fmt.Fprintln(out, "\n=== skipped tests")
	required := 0
	for _, r := range reports {
		for _, s := range r.Skipped {
			kind := "allowed "
			if !slices.ContainsFunc(allowed, func(re *regexp.Regexp) bool { return re.MatchString(s.String()) }) {
				kind = "REQUIRED"
				required++
			}
			fmt.Fprintf(out, "%s %s: %s\n", kind, r.Stage, s)
		}
	}
	switch {
	case skipped == 0:
		fmt.Fprintln(out, "none")
	case required > 0 && strict:
		fmt.Fprintf(out, "%d required tests were skipped: that fails the run\n", required)
		good = false
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return good
}

func readAllowed(file string) ([]*regexp.Regexp, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []*regexp.Regexp
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		re, err := regexp.Compile(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, re)
	}
	return out, lines.Err()
}
