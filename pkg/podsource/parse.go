package podsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Annotations of static pods, as the kubelet sets them.
const (
	AnnotationSource = "kubernetes.io/config.source"
	AnnotationHash   = "kubernetes.io/config.hash"
	AnnotationSeen   = "kubernetes.io/config.seen"
)

// Parsed is what one file holds.
type Parsed struct {
	Pods       []*corev1.Pod
	ConfigMaps []*corev1.ConfigMap
	Secrets    []*corev1.Secret
}

// Problem is something wrong with a file. Line is 0 where it is not known.
type Problem struct {
	File string
	Line int
	Pod  string // name in the manifest, where it could be read
	Err  error
}

func (p Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return where + ": " + p.Err.Error()
}

// ParseFile reads every document of a manifest. A document with a problem is
// left out; the others are not affected.
func ParseFile(path string, data []byte, nodeName string) (Parsed, []Problem) {
	var out Parsed
	var problems []Problem
	for _, d := range documents(data) {
		if err := d.parse(path, nodeName, &out); err != nil {
			problems = append(problems, d.problem(path, err))
		}
	}
	if len(problems) == 0 && len(out.Pods)+len(out.ConfigMaps)+len(out.Secrets) == 0 {
		problems = append(problems, Problem{File: path, Err: errors.New("holds no Pod, ConfigMap or Secret")})
	}
	return out, problems
}

// document is one YAML or JSON document of a file.
type document struct {
	data []byte
	line int // of its first byte, from 1
	name string
}

// documents splits a file at the lines that say ---.
func documents(data []byte) []*document {
	var out []*document
	start, startLine, line, offset := 0, 1, 1, 0
	flush := func(end int) {
		if doc := data[start:end]; !empty(doc) {
			out = append(out, &document{data: doc, line: startLine})
		}
	}
	for l := range bytes.Lines(data) {
		if t := bytes.TrimRight(l, " \t\r\n"); bytes.Equal(t, []byte("---")) || bytes.HasPrefix(l, []byte("--- ")) {
			flush(offset)
			start, startLine = offset+len(l), line+1
		}
		offset += len(l)
		line++
	}
	flush(len(data))
	return out
}

func empty(doc []byte) bool {
	for l := range bytes.Lines(doc) {
		if t := bytes.TrimSpace(l); len(t) > 0 && t[0] != '#' {
			return false
		}
	}
	return true
}

func (d *document) parse(path, nodeName string, out *Parsed) error {
	data, err := yaml.YAMLToJSONStrict(d.data)
	if err != nil {
		return err
	}
	var kind struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct{ Name string }
		Items           []json.RawMessage
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return err
	}
	d.name = kind.Metadata.Name
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Pod":
		pod := &corev1.Pod{}
		if err := strict(data, pod); err != nil {
			return err
		}
		if err := prepare(pod, path, nodeName); err != nil {
			return err
		}
		out.Pods = append(out.Pods, pod)
	case "v1 ConfigMap":
		cm := &corev1.ConfigMap{}
		if err := strict(data, cm); err != nil {
			return err
		}
		out.ConfigMaps = append(out.ConfigMaps, cm)
		return named(&cm.ObjectMeta)
	case "v1 Secret":
		s := &corev1.Secret{}
		if err := strict(data, s); err != nil {
			return err
		}
		mergeStringData(s)
		out.Secrets = append(out.Secrets, s)
		return named(&s.ObjectMeta)
	case "v1 List", "v1 PodList":
		for i, item := range kind.Items {
			inner := &document{data: item, line: d.line}
			if err := inner.parse(path, nodeName, out); err != nil {
				return fmt.Errorf("items[%d]: %w", i, err)
			}
		}
	default:
		return fmt.Errorf("unknown kind %q of apiVersion %q: want Pod, ConfigMap or Secret of v1", kind.Kind, kind.APIVersion)
	}
	return nil
}

// named checks and completes the identity of an object that is not a pod.
func named(meta *metav1.ObjectMeta) error {
	if meta.Name == "" {
		return errors.New("metadata.name: Required value")
	}
	if meta.Namespace == "" {
		meta.Namespace = metav1.NamespaceDefault
	}
	return nil
}

func mergeStringData(s *corev1.Secret) {
	for k, v := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

// strict decodes data and refuses fields that do not exist, or exist twice.
func strict(data []byte, into any) error {
	problems, err := sigsjson.UnmarshalStrict(data, into)
	return errors.Join(append([]error{err}, problems...)...)
}

// prepare turns a manifest's pod into one that can run on this node.
func prepare(pod *corev1.Pod, path, nodeName string) error {
	pod.Status = corev1.PodStatus{} // a manifest does not decide what is
	if pod.Name == "" {
		return errors.New("metadata.name: Required value")
	}
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	Default(pod)
	if errs := Validate(pod); len(errs) > 0 {
		return errs.ToAggregate()
	}
	identify(pod, path, nodeName)
	return nil
}

// identify gives a pod its UID, its name on this node and its annotations. The
// UID depends on the manifest, its path and the node, so that an edit makes
// another pod and a restart does not.
func identify(pod *corev1.Pod, path, nodeName string) {
	if pod.UID == "" {
		h := fnv.New128a()
		content, err := json.Marshal(pod)
		if err != nil {
			panic("podsource: a decoded pod cannot be encoded: " + err.Error())
		}
		h.Write(content)
		fmt.Fprintf(h, "host:%s", nodeName)
		fmt.Fprintf(h, "file:%s", path)
		pod.UID = types.UID(fmt.Sprintf("%x", h.Sum(nil)))
	}
	pod.Name += "-" + strings.ToLower(nodeName)
	pod.Spec.NodeName = nodeName
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[AnnotationHash] = string(pod.UID)
	pod.Annotations[AnnotationSource] = "file"
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	pod.Status.Phase = corev1.PodPending
}

// problem says what is wrong with a document, and at which line of the file.
func (d *document) problem(path string, err error) Problem {
	p := Problem{File: path, Pod: d.name, Err: err, Line: d.line}
	text := err.Error()
	if m := regexp.MustCompile(`line (\d+)`).FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			p.Line = d.line + n - 1
			p.Err = errors.New(strings.Replace(text, m[0], fmt.Sprintf("line %d", p.Line), 1))
			return p
		}
	}
	var root yamlv3.Node
	if yamlv3.Unmarshal(d.data, &root) != nil {
		return p
	}
	for _, field := range fieldsIn(text) {
		if n := lineOf(&root, field); n > 0 {
			p.Line = d.line + n - 1
			return p
		}
	}
	return p
}

// fieldsIn finds what looks like a field path in an error.
func fieldsIn(text string) []string {
	var out []string
	for _, pattern := range []string{
		`field "([^"]+)"`,                                 // strict decoding
		`Go struct field \w+\.([\w.\[\]]+)`,               // wrong types
		`(?m)(?:^|\[|, )((?:spec|metadata)[\w.\[\]"/-]*)`, // validation
	} {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
	}
	return out
}

// lineOf follows a field path through a document. A list that the path gives no
// index for is searched. It is 0 when nothing of the path is there.
func lineOf(node *yamlv3.Node, path string) int {
	steps := regexp.MustCompile(`[\w-]+`).FindAllString(path, -1)
	line, _ := follow(node, steps)
	return line
}

// follow returns the line where steps lead, and how many of them it could take.
func follow(node *yamlv3.Node, steps []string) (line, taken int) {
	if node.Kind == yamlv3.DocumentNode && len(node.Content) > 0 {
		return follow(node.Content[0], steps)
	}
	if len(steps) == 0 {
		return node.Line, 0
	}
	switch node.Kind {
	case yamlv3.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if key := node.Content[i]; key.Value == steps[0] {
				if len(steps) == 1 {
					return key.Line, 1
				}
				line, taken := follow(node.Content[i+1], steps[1:])
				if taken == 0 {
					line = key.Line
				}
				return line, taken + 1
			}
		}
	case yamlv3.SequenceNode:
		if n, err := strconv.Atoi(steps[0]); err == nil && n < len(node.Content) {
			line, taken := follow(node.Content[n], steps[1:])
			return line, taken + 1
		}
		best, bestLine := 0, node.Line
		for _, c := range node.Content {
			if line, taken := follow(c, steps); taken > best {
				best, bestLine = taken, line
			}
		}
		return bestLine, best
	}
	return node.Line, 0
}
