package config

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/json"
)

// FieldError is one thing wrong with one field.
type FieldError struct {
	Field string // a path such as clusterDNS[1] or systemReserved.cpu
	Line  int    // of the configuration file; 0 when the field is not in it
	Err   error
}

func (e *FieldError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s: %v", e.Line, e.Field, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Field, e.Err)
}

func (e *FieldError) Unwrap() error { return e.Err }

// lines maps the paths of fields to the lines of a file.
type lines map[string]int

// of finds the line of a field, or of the closest thing around it that is there.
func (l lines) of(field string) int {
	for field != "" {
		if line, there := l[field]; there {
			return line
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return 0
}

// linesOf finds the fields of a document, which keeps its place in its file.
func linesOf(doc []byte) lines {
	var root yaml.Node
	out := lines{}
	if yaml.Unmarshal(doc, &root) == nil {
		for _, n := range root.Content {
			out.add("", n)
		}
	}
	return out
}

func (l lines) add(path string, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			field := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
			l[field] = n.Content[i].Line
			l.add(field, n.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			field := fmt.Sprintf("%s[%d]", path, i)
			l[field] = item.Line
			l.add(field, item)
		}
	}
}

// unknown names a field that does not exist; below is the one it was found in.
func (l lines) unknown(below string, err error) error {
	if e := json.FieldError(nil); errors.As(err, &e) {
		below = e.FieldPath()
	}
	return &FieldError{Field: below, Line: l.of(below), Err: err}
}

// wrongType names a field whose value is of another kind than wanted. The strict
// decoder does not say which one it is; the standard library's does.
func (l lines) wrongType(name string, text []byte, into any, err error) error {
	again := reflect.New(reflect.TypeOf(into).Elem()).Interface()
	if e := (*stdjson.UnmarshalTypeError)(nil); errors.As(stdjson.Unmarshal(text, again), &e) && e.Field != "" {
		return &FieldError{Field: e.Field, Line: l.of(e.Field), Err: fmt.Errorf("want %s, not %s", e.Type, e.Value)}
	}
	return &FieldError{Field: name, Line: l.of(name), Err: err}
}
