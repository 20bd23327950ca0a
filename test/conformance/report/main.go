// Command report turns the JUnit file of a run of Kubernetes' node tests into
// Markdown: what passed, and every test that did not.
package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

type suites struct {
	Cases []testCase `xml:"testsuite>testcase"`
}

type testCase struct {
	Name    string   `xml:"name,attr"`
	Status  string   `xml:"status,attr"`
	Failure *failure `xml:"failure"`
}

type failure struct {
	Message string `xml:"message,attr"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: report JUNIT.xml")
		os.Exit(2)
	}
	failed, err := run(os.Args[1], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if failed > 0 {
		os.Exit(1)
	}
}

// run reports to w; a run without a test is an error.
func run(path string, w io.Writer) (failed int, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var s suites
	if err := xml.Unmarshal(data, &s); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	cases := slices.DeleteFunc(s.Cases, func(c testCase) bool {
		return !strings.HasPrefix(c.Name, "[It]") || c.Status == "skipped" || c.Status == "pending"
	})
	if len(cases) == 0 {
		return 0, fmt.Errorf("%s: no test ran", path)
	}
	slices.SortFunc(cases, func(a, b testCase) int { return strings.Compare(a.Name, b.Name) })
	var bad []testCase
	for _, c := range cases {
		if c.Status != "passed" {
			bad = append(bad, c)
		}
	}
	fmt.Fprintf(w, "%d of %d passed.\n", len(cases)-len(bad), len(cases))
	if len(bad) > 0 {
		fmt.Fprint(w, "\n| Did not pass | |\n|---|---|\n")
	}
	for _, c := range bad {
		fmt.Fprintf(w, "| %s | %s |\n", cell(strings.TrimPrefix(c.Name, "[It] "), 300), cell(message(c), 300))
	}
	return len(bad), nil
}

func message(c testCase) string {
	if c.Failure == nil {
		return c.Status
	}
	return c.Failure.Message
}

// cell makes text fit a table.
func cell(text string, most int) string {
	text = strings.Join(strings.Fields(strings.ReplaceAll(text, "|", "\\|")), " ")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + " …"
	}
	return text
}
