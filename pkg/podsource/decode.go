package podsource

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	strTag   = "!!str"
	intTag   = "!!int"
	floatTag = "!!float"
	boolTag  = "!!bool"
	nullTag  = "!!null"
	timeTag  = "!!timestamp"
	mergeTag = "!!merge"
)

// maxNodes of one object are visited, each use of an alias anew: this is what
// keeps nine lines of aliases from becoming a billion values.
const maxNodes = 200_000

// decoder makes JSON values of a tree of nodes, and holds them against the Go
// type they are meant for: unknown fields, fields set twice and wrong types are
// all found, each with its line.
type decoder struct {
	quiet  bool // values are secret and must not be shown
	lines  lineIndex
	found  []located
	depth  int
	budget int
	open   map[*yaml.Node]bool // aliases being followed
}

func newDecoder(quiet bool) *decoder {
	return &decoder{quiet: quiet, lines: lineIndex{}, budget: maxNodes, open: map[*yaml.Node]bool{}}
}

// decode fills obj, a pointer to a struct, unless something was found. The tree
// is what the file says, in JSON's own types.
func (d *decoder) decode(n *yaml.Node, obj any) (tree map[string]any, err error) {
	v := d.value(n, reflect.TypeOf(obj).Elem(), nil)
	if len(d.found) > 0 {
		return nil, nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	tree, _ = v.(map[string]any)
	return tree, json.Unmarshal(data, obj)
}

func (d *decoder) problem(n *yaml.Node, path *field.Path, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if path != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	d.found = append(d.found, located{n.Line, err})
}

// value is n as JSON for type t; without a type anything goes.
func (d *decoder) value(n *yaml.Node, t reflect.Type, path *field.Path) any {
	switch {
	case path == nil:
		d.lines[""] = n.Line
	case t != nil:
		d.lines[path.String()] = n.Line
	}
	if d.budget--; d.budget < 0 {
		if d.budget == -1 { // said once
			d.problem(n, path, "more than %d values, aliases counted each time", maxNodes)
		}
		return nil
	}
	if d.depth++; d.depth > maxDepth {
		d.problem(n, path, "nested more than %d levels deep", maxDepth)
	}
	defer func() { d.depth-- }()
	if n.Kind == yaml.AliasNode {
		target := n.Alias
		if d.open[target] {
			d.problem(n, path, "anchor %q contains itself", n.Value)
			return nil
		}
		d.open[target] = true
		defer delete(d.open, target)
		n = target
	}
	if d.depth > maxDepth || n.ShortTag() == nullTag {
		return nil
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return d.custom(n, t, path)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.mapping(n, t, path)
	case yaml.SequenceNode:
		return d.sequence(n, t, path)
	default:
		return d.scalar(n, t, path)
	}
}

// custom is for types that read themselves, such as quantities and times.
func (d *decoder) custom(n *yaml.Node, t reflect.Type, path *field.Path) any {
	before := len(d.found)
	v := d.value(n, nil, path)
	if len(d.found) > before {
		return nil
	}
	data, err := json.Marshal(v)
	if err == nil {
		err = reflect.New(t).Interface().(json.Unmarshaler).UnmarshalJSON(data)
	}
	switch {
	case err == nil:
		return v
	case t == reflect.TypeFor[resource.Quantity]():
		d.problem(n, path, "want a quantity such as 100m, 1.5 or 64Mi, got %s", d.show(n))
	default:
		d.problem(n, path, "got %s: %w", d.show(n), err)
	}
	return nil
}

func (d *decoder) mapping(n *yaml.Node, t reflect.Type, path *field.Path) any {
	var fields map[string]reflect.Type
	switch {
	case t == nil, t.Kind() == reflect.Map:
	case t.Kind() == reflect.Struct:
		fields = fieldsOf(t)
	default:
		d.problem(n, path, "want %s, got %s", nameOf(t), d.show(n))
		return nil
	}
	out := map[string]any{}
	for _, p := range d.pairs(n, path) {
		name := p.key.Value
		child, elem := path.Key(name), reflect.Type(nil)
		if t != nil && fields == nil {
			elem = t.Elem()
		}
		if fields != nil {
			known := false
			child = path.Child(name)
			if elem, known = fields[name]; !known {
				d.problem(p.key, child, "unknown field%s", suggest(name, fields))
				continue
			}
		}
		v := d.value(p.value, elem, child)
		if fields != nil {
			d.lines[child.String()] = p.key.Line // where people look for a field
		}
		out[name] = v
	}
	return out
}

// fieldsOf are the fields of a struct by their JSON names.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			maps.Copy(out, fieldsOf(f.Type))
		case name == "":
			out[f.Name] = f.Type
		default:
			out[name] = f.Type
		}
	}
	return out
}

// pair is one entry of a mapping.
type pair struct{ key, value *yaml.Node }

// pairs lists the entries of a mapping. Merged ones come last and never replace
// those that are written out.
func (d *decoder) pairs(n *yaml.Node, path *field.Path) []pair {
	var out []pair
	var merges []*yaml.Node
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == nullTag:
			d.problem(key, path, "the name of a field must be text, got %s", d.show(key))
		case key.ShortTag() == mergeTag:
			merges = append(merges, value)
		case seen[key.Value] > 0:
			d.problem(key, path, "field %q is set twice, first in line %d", key.Value, seen[key.Value])
		default:
			seen[key.Value] = key.Line
			out = append(out, pair{key, value})
		}
	}
	for _, m := range merges {
		for _, p := range d.merged(m, path) {
			if seen[p.key.Value] == 0 {
				seen[p.key.Value] = p.key.Line
				out = append(out, p)
			}
		}
	}
	return out
}

// merged are the entries that a "<<" brings in: of a mapping, or of several of
// which the first wins.
func (d *decoder) merged(n *yaml.Node, path *field.Path) []pair {
	if d.depth++; d.depth > maxDepth {
		d.problem(n, path, "nested more than %d levels deep", maxDepth)
		return nil
	}
	defer func() { d.depth-- }()
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.budget -= len(n.Content); d.budget < 0 {
		return nil // value reports it
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.pairs(n, path)
	case yaml.SequenceNode:
		var out []pair
		for _, c := range n.Content {
			out = append(out, d.merged(c, path)...)
		}
		return out
	default:
		d.problem(n, path, "only a mapping can be merged, got %s", d.show(n))
		return nil
	}
}

func (d *decoder) sequence(n *yaml.Node, t reflect.Type, path *field.Path) any {
	var elem reflect.Type
	if t != nil {
		if t.Kind() != reflect.Slice || t.Elem().Kind() == reflect.Uint8 {
			d.problem(n, path, "want %s, got a list", nameOf(t))
			return nil
		}
		elem = t.Elem()
	}
	out := []any{}
	for i, c := range n.Content {
		if c.ShortTag() == nullTag {
			d.problem(c, path.Index(i), "the list's item is empty")
			continue
		}
		out = append(out, d.value(c, elem, path.Index(i)))
	}
	return out
}

func (d *decoder) scalar(n *yaml.Node, t reflect.Type, path *field.Path) any {
	v, ok := plain(n)
	if !ok {
		d.problem(n, path, "%s is not a value that can be used here", d.show(n))
		return nil
	}
	if t == nil {
		return v
	}
	quote := ""
	switch t.Kind() {
	case reflect.String:
		if s, ok := v.(string); ok {
			return s
		}
		quote = ": put it in quotes"
	case reflect.Bool:
		if b, ok := asBool(v, n); ok {
			return b
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if i, ok := asInt(v); ok {
			if !reflect.Zero(t).OverflowInt(i) {
				return i
			}
			quote = ", which is out of range"
		}
	case reflect.Float32, reflect.Float64:
		switch v.(type) {
		case int64, uint64, float64:
			return v
		}
	case reflect.Slice:
		if s, ok := v.(string); ok && t.Elem().Kind() == reflect.Uint8 {
			if _, err := base64.StdEncoding.DecodeString(s); err != nil {
				d.problem(n, path, "want base64: %w", err)
				return nil
			}
			return s
		}
	}
	d.problem(n, path, "want %s, got %s%s", nameOf(t), d.show(n), quote)
	return nil
}

// plain is a scalar in JSON's own types.
func plain(n *yaml.Node) (any, bool) {
	switch n.ShortTag() {
	case strTag, timeTag, mergeTag:
		return n.Value, true
	case intTag, floatTag, boolTag:
		var v any
		if n.Decode(&v) != nil {
			return nil, false
		}
		switch i := v.(type) {
		case int:
			return int64(i), true
		case float64:
			return i, !math.IsNaN(i) && !math.IsInf(i, 0)
		}
		return v, true
	default:
		return nil, false
	}
}

// asBool also takes what was a boolean in YAML 1.1, which the kubelet reads.
func asBool(v any, n *yaml.Node) (value, ok bool) {
	if b, ok := v.(bool); ok {
		return b, true
	}
	if n.Style != 0 || n.Tag != strTag {
		return false, false
	}
	switch n.Value {
	case "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	default:
		return false, false
	}
}

func asInt(v any) (int64, bool) {
	switch i := v.(type) {
	case int64:
		return i, true
	case float64: // 1e3 is a whole number
		return int64(i), i == math.Trunc(i) && math.Abs(i) < 1<<53
	default:
		return 0, false
	}
}
