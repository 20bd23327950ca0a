package podsource

import (
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// nameOf says what is wanted in words of the file, not of the program.
func nameOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64 text"
		}
		return "a list"
	case reflect.Float32, reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}

// show says what was found, cut to what fits a message.
func (d *decoder) show(n *yaml.Node) string {
	value := n.Value
	if r := []rune(value); len(r) > 40 {
		value = string(r[:40]) + "…"
	}
	switch {
	case n.Kind == yaml.MappingNode:
		return "an object"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case d.quiet:
		return "something else"
	case n.ShortTag() == strTag:
		return fmt.Sprintf("%q", value)
	case n.ShortTag() == intTag, n.ShortTag() == floatTag, n.ShortTag() == boolTag, n.ShortTag() == timeTag:
		return value
	default:
		return fmt.Sprintf("%s %q", n.Tag, value)
	}
}
