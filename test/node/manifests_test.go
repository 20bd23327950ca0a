//go:build integration

package node

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestBadManifests(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("good.yaml", sleeper("good", "c"))
	m.manifest("breaks.yaml", sleeper("breaks", "c"))
	m.start()
	before := map[string]map[string]string{}
	for _, name := range []string{"good", "breaks"} {
		before[name] = containerIDs(m.await(name, "ready", ready))
	}
	if err := os.Symlink("loop.yaml", m.manifests+"/loop.yaml"); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		text string
		want []string // in one line of the log
	}{
		"type.yaml":      {strings.Replace(sleeper("type", "c"), "PeriodSeconds: 2", "PeriodSeconds: soon", 1), []string{"type.yaml", `"line":5,`, "terminationGracePeriodSeconds"}},
		"twice.yaml":     {sleeper("twice", "c", "c"), []string{"twice.yaml", `"line":10,`, "Duplicate value"}},
		"unknown.yaml":   {strings.Replace(sleeper("unknown", "c"), "    image:", "    imaje:", 1), []string{"unknown.yaml", `"line":8,`, "imaje"}},
		"huge.yaml":      {sleeper("huge", "c") + "#" + strings.Repeat("x", 10<<20), []string{"huge.yaml", "a manifest has at most 10485760"}},
		"half.yaml":      {sleeper("half", "c")[:95] + "\n  - {name: [", []string{"half.yaml", `"line":`}},
		"breaks.yaml":    {"apiVersion: v1\nkind: Pod\nmetadata: {name: breaks}\nspec: {containers: 7}\n", []string{"breaks.yaml", `"line":4,`, "containers"}},
		"loop.yaml":      {"", []string{"loop.yaml", "too many levels of symbolic links"}},
		"duplicate.yaml": {sleeper("good", "c"), []string{"duplicate.yaml", "is also in", "good.yaml"}},
		"binary.yaml":    {"\x7fELF\x02\x01\x01\x00\x00", []string{"binary.yaml"}},
	}
	for file, tc := range cases {
		if tc.text != "" {
			m.manifest(file, tc.text)
		}
	}
	for file, tc := range cases {
		m.eventually(file+" is reported", func() error {
			log, err := os.ReadFile(m.dir + "/agent.log")
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(log)) {
				found := strings.Contains(line, "manifest not used")
				for _, w := range tc.want {
					found = found && strings.Contains(line, w)
				}
				if found {
					return nil
				}
			}
			return fmt.Errorf("no line of the log has all of %q", tc.want)
		})
	}
	m.kill() // an agent that starts among broken files keeps what they had
	m.start()
	for name, ids := range before {
		if d := cmp.Diff(ids, containerIDs(m.await(name, "ready", ready))); d != "" {
			t.Errorf("%s was touched:\n%s", name, d)
		}
	}
	m.manifest("half.yaml", sleeper("half", "c"))
	half := m.await("half", "ready once its file is whole", ready)
	m.manifest("half.yaml", strings.Replace(sleeper("half", "c"), "name: c\n", "name: d\n", 1))
	edited := m.await("half", "replaced after an edit", func(p *corev1.Pod) bool { return ready(p) && p.UID != half.UID })
	if _, is := containerIDs(edited)["d"]; !is {
		t.Errorf("containers are %v", containerIDs(edited))
	}
}
