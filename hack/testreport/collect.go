package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// event is one line of test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
}

type id struct{ pkg, test string }

func (i id) String() string { return i.pkg + "." + i.test }

// collector follows the events of one run. Not safe for concurrent use.
type collector struct {
	out     io.Writer
	output  map[id]*strings.Builder // of tests which have not ended
	results map[id]string           // pass, fail or skip
	parents map[id]bool             // tests with subtests, which are not counted
	reasons map[id]string
	failed  []id
}

func newCollector(out io.Writer) *collector {
	return &collector{
		out:     out,
		output:  map[id]*strings.Builder{},
		results: map[id]string{},
		parents: map[id]bool{},
		reasons: map[id]string{},
	}
}

// read consumes events until the stream ends. Lines which are none are shown.
func (c *collector) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				c.handle(e)
			} else {
				fmt.Fprint(c.out, line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

func (c *collector) handle(e event) {
	i := id{e.Package, e.Test}
	switch e.Action {
	case "output":
		c.handleOutput(i, e.Output)
	case "build-output":
		fmt.Fprint(c.out, e.Output)
	case "run":
		if slash := strings.LastIndex(e.Test, "/"); slash > 0 {
			c.parents[id{e.Package, e.Test[:slash]}] = true
		}
	case "pass", "skip", "fail":
		c.end(i, e.Action)
	}
}

func (c *collector) handleOutput(i id, text string) {
	if i.test == "" {
		// The closing line of a package, or what a broken one printed.
		if text != "PASS\n" && text != "FAIL\n" && !strings.HasPrefix(text, "coverage:") {
			fmt.Fprint(c.out, text)
		}
		return
	}
	b := c.output[i]
	if b == nil {
		b = &strings.Builder{}
		c.output[i] = b
	}
	b.WriteString(text)
}

func (c *collector) end(i id, action string) {
	if i.test == "" {
		if action == "fail" {
			c.endPackage(i.pkg)
		}
		return
	}
	c.results[i] = action
	switch action {
	case "fail":
		c.failed = append(c.failed, i)
		c.show(i)
	case "skip":
		c.reasons[i] = reason(c.output[i])
	}
	delete(c.output, i)
}

// endPackage accounts for the tests which a crash or a timeout left open.
func (c *collector) endPackage(pkg string) {
	var open []id
	for i := range c.output {
		if i.pkg == pkg {
			open = append(open, i)
		}
	}
	slices.SortFunc(open, func(a, b id) int { return strings.Compare(a.test, b.test) })
	for _, i := range open {
		c.end(i, "fail")
	}
	if !slices.ContainsFunc(c.failed, func(i id) bool { return i.pkg == pkg }) {
		c.failed = append(c.failed, id{pkg, "(build or setup)"})
		c.results[id{pkg, "(build or setup)"}] = "fail"
	}
}

func (c *collector) show(i id) {
	if b := c.output[i]; b != nil {
		fmt.Fprintf(c.out, "\n%s", b)
	}
}

// reason is what a test said when it skipped, without its place in the code.
func reason(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	var said string
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = line
	}
	if _, text, ok := strings.Cut(said, ".go:"); ok {
		if _, text, ok := strings.Cut(text, ": "); ok {
			return text
		}
	}
	return said
}

func (c *collector) report(stage string, took time.Duration) report {
	r := report{Stage: stage, Seconds: took.Seconds()}
	for i, result := range c.results {
		if c.parents[i] {
			continue
		}
		switch result {
		case "pass":
			r.Passed++
		case "skip":
			r.Skipped = append(r.Skipped, skip{Test: i.String(), Reason: c.reasons[i]})
		}
	}
	for _, i := range c.failed {
		if !c.parents[i] {
			r.Failed = append(r.Failed, i.String())
		}
	}
	// A parent that fails by itself counts once its children are all well.
	if len(r.Failed) == 0 {
		for _, i := range c.failed {
			r.Failed = append(r.Failed, i.String())
		}
	}
	slices.SortFunc(r.Skipped, func(a, b skip) int { return strings.Compare(a.Test, b.Test) })
	return r
}
