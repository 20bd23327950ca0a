package podsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxDocument is what an API server accepts in one request.
	maxDocument = 3 << 20
	// maxDocuments of one file is far beyond what a machine can run.
	maxDocuments = 5000
	// maxDepth is far beyond any field of a pod.
	maxDepth = 64
)

// document is one of the parts that lines of "---" divide a file into.
type document struct {
	before int // lines of the file before it
	text   []byte
}

// documents divides a file. A line that begins with "---" divides YAML wherever
// it stands, even inside a block of text.
func documents(data []byte) []document {
	var out []document
	doc := document{}
	start, line := 0, 0
	for pos := 0; pos < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if isDivider(data[pos:end]) {
			doc.text = data[start:pos]
			out = append(out, doc)
			// What follows on the divider's own line belongs to the next document.
			doc, start = document{before: line}, pos+3
		}
		pos = end
		line++
	}
	doc.text = data[start:]
	return append(out, doc)
}

func isDivider(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])))
}

// nodes reads the objects of a document. An empty document has none.
func (d document) nodes() ([]*yaml.Node, *located) {
	if len(d.text) > maxDocument {
		return nil, &located{d.before + 1, fmt.Errorf("document of %d bytes: an API server accepts at most %d", len(d.text), maxDocument)}
	}
	if err := d.checkText(); err != nil {
		return nil, err
	}
	// YAML cannot read all of JSON: the halves of a surrogate pair are an error there.
	if text := bytes.TrimLeft(d.text, " \t\r\n"); bytes.HasPrefix(text, []byte("{")) {
		if nodes, err := d.jsonNodes(); err == nil {
			return nodes, nil
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(d.text))
	var out []*yaml.Node
	for {
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, d.syntaxError(err)
		case n.Kind == yaml.DocumentNode && len(n.Content) == 1 && n.Content[0].ShortTag() != nullTag:
			d.shift(n.Content[0])
			out = append(out, n.Content[0])
		}
	}
}

// shift makes lines count from the file's first. Aliases point into the same
// tree and need no visit of their own.
func (d document) shift(n *yaml.Node) {
	n.Line += d.before
	for _, c := range n.Content {
		d.shift(c)
	}
}

// checkText refuses what no text file has. YAML's own error has no line.
func (d document) checkText() *located {
	line := d.before + 1
	for text := d.text; len(text) > 0; {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			return &located{line, errors.New("not a text file in UTF-8")}
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r <= 0x9f && r != 0x85:
			return &located{line, fmt.Errorf("control character %U is not allowed", r)}
		case r == '\n':
			line++
		}
		text = text[size:]
	}
	return nil
}

// syntaxError takes the line out of the parser's message.
func (d document) syntaxError(err error) *located {
	line, message := splitYAMLError(err)
	if strings.HasPrefix(message, "did not find expected key") || strings.HasPrefix(message, "did not find expected '-' indicator") {
		line = d.offendingLine(line, message)
	}
	if strings.Contains(message, "tab character") {
		line = d.tabLine(line)
	}
	// At the end of the file the library sees one line more than there is.
	last := 1 + bytes.Count(bytes.TrimRight(d.text, "\n"), []byte("\n"))
	return &located{d.before + min(line, last), errors.New("not valid YAML: " + message)}
}

// splitYAMLError repairs the line: the library counts from 0 in errors of its
// parser, and from 1 in those of its scanner.
func splitYAMLError(err error) (line int, message string) {
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	rest, ok := strings.CutPrefix(message, "line ")
	number, text, _ := strings.Cut(rest, ": ")
	n, atoiErr := strconv.Atoi(number)
	if !ok || atoiErr != nil {
		return 1, message
	}
	switch text {
	case "did not find expected ',' or ']'", "did not find expected ',' or '}'", "did not find expected node content",
		"did not find expected <document start>", "did not find expected key", "did not find expected '-' indicator":
		n++
	}
	return n, text
}

// offendingLine finds where a block goes wrong. The library names the line where
// the block began; the first part of the document that has the same error ends
// with the line that causes it.
func (d document) offendingLine(began int, message string) int {
	if len(d.text) > 256<<10 {
		return began
	}
	ends := []int{}
	for i, c := range d.text {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	n := sort.Search(len(ends), func(i int) bool {
		err := yaml.Unmarshal(d.text[:ends[i]], &yaml.Node{})
		if err == nil {
			return false
		}
		_, m := splitYAMLError(err)
		return m == message
	})
	return n + 1
}

// tabLine finds the tab that indents a line, at or after a line.
func (d document) tabLine(from int) int {
	for i, l := range bytes.Split(d.text, []byte("\n")) {
		indent := l[:len(l)-len(bytes.TrimLeft(l, " \t"))]
		if i+1 >= from && bytes.ContainsRune(indent, '\t') {
			return i + 1
		}
	}
	return from
}

// jsonNodes reads JSON into the tree that YAML would give.
func (d document) jsonNodes() ([]*yaml.Node, error) {
	r := &jsonReader{dec: json.NewDecoder(bytes.NewReader(d.text)), text: d.text, line: d.before + 1}
	r.dec.UseNumber()
	var out []*yaml.Node
	for {
		n, err := r.value(0)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
}

type jsonReader struct {
	dec     *json.Decoder
	text    []byte
	counted int64 // bytes of text whose lines are in line
	line    int
}

func (r *jsonReader) token() (json.Token, error) {
	t, err := r.dec.Token()
	if at := r.dec.InputOffset(); err == nil && at > r.counted {
		r.line += bytes.Count(r.text[r.counted:at], []byte("\n"))
		r.counted = at
	}
	return t, err
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	t, err := r.token()
	if err != nil {
		return nil, err
	}
	scalar := func(tag, value string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value, Line: r.line}, nil
	}
	switch v := t.(type) {
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: strTag, Value: v, Line: r.line, Style: yaml.DoubleQuotedStyle}, nil
	case bool:
		return scalar(boolTag, strconv.FormatBool(v))
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return scalar(floatTag, v.String())
		}
		return scalar(intTag, v.String())
	case json.Delim:
		return r.collection(v, depth)
	default:
		return scalar(nullTag, "null")
	}
}

func (r *jsonReader) collection(open json.Delim, depth int) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: r.line}
	if open == '{' {
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	}
	if depth > maxDepth { // read as YAML then, and refused with the field's name
		return nil, errors.New("nested too deeply")
	}
	for r.dec.More() {
		c, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, c)
	}
	_, err := r.token() // the closing delimiter
	return n, err
}
