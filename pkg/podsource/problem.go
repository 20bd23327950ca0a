package podsource

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Problem is one thing wrong with a manifest. It is an error.
type Problem struct {
	File string
	Line int    // 0 when it concerns the file as a whole
	Pod  string // namespace/name, when it is known
	Err  error
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Pod != "" {
		fmt.Fprintf(&b, ": pod %s", p.Pod)
	}
	fmt.Fprintf(&b, ": %v", p.Err)
	return b.String()
}

func (p Problem) Unwrap() error { return p.Err }

// located is a problem within a file; its line counts from the file's first.
type located struct {
	line int
	err  error
}

// mostProblems of one object, and mostInFile, are reported; more help nobody.
const (
	mostProblems = 20
	mostInFile   = 100
)

// problems names file and pod, in the order of lines.
func problems(file, pod string, found []located) []Problem {
	slices.SortStableFunc(found, func(a, b located) int { return cmp.Compare(a.line, b.line) })
	var out []Problem
	for i, f := range found {
		if i == mostProblems {
			out = append(out, Problem{file, f.line, pod, fmt.Errorf("and %d more problems", len(found)-i)})
			break
		}
		out = append(out, Problem{file, f.line, pod, f.err})
	}
	return out
}

// lineIndex maps the paths of fields, as field.Path prints them, to lines.
type lineIndex map[string]int

// of finds the line of a field, or of the closest thing around it that is there.
func (l lineIndex) of(path string) int {
	for path != "" {
		if line, ok := l[path]; ok {
			return line
		}
		cut := strings.LastIndexByte(path, '.')
		if strings.HasSuffix(path, "]") {
			cut = strings.LastIndexByte(path, '[')
		}
		path = path[:max(cut, 0)]
	}
	return l[""]
}

func (l lineIndex) locate(errs field.ErrorList) []located {
	var out []located
	for _, e := range errs {
		out = append(out, located{l.of(e.Field), e})
	}
	return out
}
