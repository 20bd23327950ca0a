package podsource

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Parsed is what one file holds, in its order.
type Parsed struct {
	Pods       []*corev1.Pod
	ConfigMaps []*corev1.ConfigMap
	Secrets    []*corev1.Secret

	lines map[metav1.Object]int
}

// Line is where in its file an object begins.
func (p Parsed) Line(obj metav1.Object) int { return p.lines[obj] }

// ParseFile reads a manifest: documents of YAML or JSON with pods, ConfigMaps and
// Secrets, alone or in lists. Pods are complete: defaulted, checked, named after
// the node and with the UID that the same content in the same file always has.
//
// Where there are problems, the file is not to be used; what could be read is
// returned only to be looked at.
func ParseFile(name string, data []byte, nodeName string) (Parsed, []Problem) {
	p := &parser{file: name, node: nodeName, parsed: Parsed{lines: map[metav1.Object]int{}}, first: map[string]int{}}
	if len(data) > maxFile {
		p.fail(0, fmt.Errorf("%d bytes: a manifest has at most %d", len(data), maxFile))
		return p.parsed, p.problems
	}
	docs := documents(data)
	if len(docs) > maxDocuments {
		p.fail(0, fmt.Errorf("%d documents: a manifest has at most %d", len(docs), maxDocuments))
		return p.parsed, p.problems
	}
	for _, doc := range docs {
		if len(p.problems) > mostInFile {
			p.fail(doc.before+1, errors.New("and perhaps more problems: from here on the file was not read"))
			break
		}
		nodes, err := doc.nodes()
		if err != nil {
			p.fail(err.line, err.err)
			continue
		}
		for _, n := range nodes {
			p.object(n, "", false)
		}
	}
	if len(p.parsed.lines) == 0 && len(p.problems) == 0 && len(bytes.TrimSpace(data)) == 0 {
		// Editors and shells truncate before they write. Whoever wants a file without
		// pods can leave a comment in it.
		p.fail(0, errors.New("the file is empty"))
	}
	return p.parsed, p.problems
}

type parser struct {
	file, node string
	parsed     Parsed
	problems   []Problem
	first      map[string]int // kind, namespace and name to line
}

func (p *parser) fail(line int, err error) {
	p.problems = append(p.problems, Problem{File: p.file, Line: line, Err: err})
}

const version = "v1"

// object reads one object. Items of a typed list need not say what they are.
func (p *parser) object(n *yaml.Node, assume string, inList bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n.Line, errors.New("want an object with apiVersion, kind and metadata"))
		return
	}
	apiVersion, kind := text(n, "apiVersion"), text(n, "kind")
	if assume != "" && apiVersion == "" && kind == "" {
		apiVersion, kind = version, assume
	}
	items, isList := strings.CutSuffix(kind, "List")
	switch {
	case kind == "":
		p.fail(n.Line, errors.New("kind is missing: want Pod, ConfigMap or Secret"))
	case apiVersion == "":
		p.fail(n.Line, errors.New("apiVersion is missing: want v1"))
	case apiVersion != version:
		p.fail(lineOf(n, "apiVersion"), fmt.Errorf("%s of %s is not for a manifest directory: want Pod, ConfigMap or Secret of v1", kind, apiVersion))
	case isList && inList:
		p.fail(lineOf(n, "kind"), errors.New("a list in a list"))
	case isList && (items == "" || isKind(items)):
		p.list(n, items)
	case kind == "Pod":
		p.pod(n)
	case kind == "ConfigMap":
		p.configMap(n)
	case kind == "Secret":
		p.secret(n)
	default:
		p.fail(lineOf(n, "kind"), fmt.Errorf("kind %s is not for a manifest directory: want Pod, ConfigMap or Secret", kind))
	}
}

func isKind(s string) bool { return s == "Pod" || s == "ConfigMap" || s == "Secret" }

// text is the value of a field of n, if it is text.
func text(n *yaml.Node, name string) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name && n.Content[i+1].ShortTag() == strTag {
			return n.Content[i+1].Value
		}
	}
	return ""
}

func lineOf(n *yaml.Node, name string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i].Line
		}
	}
	return n.Line
}

func (p *parser) list(n *yaml.Node, items string) {
	d := newDecoder(true)
	meta := reflect.TypeFor[metav1.ListMeta]()
	for _, e := range d.pairs(n, nil) {
		switch e.key.Value {
		case "apiVersion", "kind":
		case "metadata":
			d.value(e.value, meta, nil)
		case "items":
			if e.value.Kind != yaml.SequenceNode {
				d.problem(e.value, nil, "items: want a list")
				continue
			}
			for _, c := range e.value.Content {
				p.object(c, items, true)
			}
		default:
			d.problem(e.key, nil, "unknown field %q", e.key.Value)
		}
	}
	p.problems = append(p.problems, problems(p.file, "", d.found)...)
}

// decode fills obj and reports what is wrong; ok says that nothing is.
func (p *parser) decode(n *yaml.Node, obj any, quiet bool) (tree map[string]any, lines lineIndex, ok bool) {
	d := newDecoder(quiet)
	tree, err := d.decode(n, obj)
	if err != nil { // the decoder accepted what JSON does not
		d.found = append(d.found, located{n.Line, err})
	}
	p.problems = append(p.problems, problems(p.file, nameFrom(n), d.found)...)
	return tree, d.lines, len(d.found) == 0
}

// nameFrom is the namespace/name of a pod that could not be decoded, as far as
// it can be told.
func nameFrom(n *yaml.Node) string {
	if text(n, "kind") != "Pod" {
		return ""
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if meta := n.Content[i+1]; n.Content[i].Value == "metadata" && meta.Kind == yaml.MappingNode {
			if name := text(meta, "name"); name != "" {
				return namespaced(text(meta, "namespace"), name)
			}
		}
	}
	return ""
}

func namespaced(namespace, name string) string {
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return namespace + "/" + name
}

// add notes an object, unless the file has another of that kind and name.
func (p *parser) add(kind string, obj metav1.Object, line int) bool {
	key := kind + " " + types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}.String()
	if first, twice := p.first[key]; twice {
		p.fail(line, fmt.Errorf("%s is in this file twice, first in line %d", key, first))
		return false
	}
	p.first[key] = line
	p.parsed.lines[obj] = line
	return true
}

func (p *parser) pod(n *yaml.Node) {
	pod := &corev1.Pod{}
	tree, lines, ok := p.decode(n, pod, false)
	if !ok {
		return
	}
	hash, err := contentHash(tree, p.node, p.file)
	if err != nil {
		p.fail(n.Line, err)
		return
	}
	clean(pod)
	Default(pod)
	found := lines.locate(append(Validate(pod), references(pod)...))
	if len(found) == 0 {
		localize(pod, p.node, hash)
		found = lines.locate(validateFinalName(pod))
	}
	p.problems = append(p.problems, problems(p.file, namespaced(pod.Namespace, pod.Name), found)...)
	if len(found) == 0 && p.add("Pod", pod, n.Line) {
		p.parsed.Pods = append(p.parsed.Pods, pod)
	}
}
