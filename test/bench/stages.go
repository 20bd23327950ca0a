package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// stageTable is where the time of a pod's start goes: for each stage the mean of
// all pods, in milliseconds.
type stageTable struct {
	Pods   int     `json:"pods"` // started at once
	Rounds int     `json:"rounds"`
	Stages []stage `json:"stages"`
}

type stage struct {
	Name string  `json:"name"`
	Mean float64 `json:"meanMS"`
}

// line is what the agent says of one part of its work at debug level.
type line struct {
	Time   time.Time     `json:"time"`
	Msg    string        `json:"msg"`
	Step   string        `json:"step"`
	Method string        `json:"method"`
	Took   time.Duration `json:"took"`
}

// key tells the parts apart.
func (l *line) key() string {
	switch l.Msg {
	case "containerd called":
		return l.Method[strings.LastIndexByte(l.Method, '.')+1:]
	case "step done":
		return l.Step
	case "turn has come":
		return "wait to " + l.Step
	default:
		return l.Msg
	}
}

// measureStages starts pods with an agent that tells what it does, which costs a
// little: these runs give no figure but this one.
func measureStages(ctx context.Context, o options, pods int) (table stageTable, err error) {
	m, err := newMachine(ctx, o)
	if err != nil {
		return table, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	s, err := newAgent(m, "-v", "4")
	if err != nil {
		return table, err
	}
	fmt.Fprintf(os.Stderr, "stages of a start: %d pods\n", pods)
	if err := s.start(ctx); err != nil {
		return table, err
	}
	w := m.watch(ctx, s.namespace)
	defer w.close()
	if _, err := m.round(ctx, s, w, 1, nil); err != nil {
		return table, s.proc.explain(err)
	}
	sums, total := map[string]time.Duration{}, time.Duration(0)
	table = stageTable{Pods: pods, Rounds: rounds(pods)}
	for range table.Rounds {
		log, err := os.Stat(s.proc.log)
		if err != nil {
			return table, err
		}
		begin := time.Now()
		_, err = m.round(ctx, s, w, pods, func(up []started) error {
			for _, c := range up {
				total += c.at.Sub(begin)
			}
			return addLines(sums, s.proc.log, log.Size(), begin)
		})
		if err != nil {
			return table, s.proc.explain(err)
		}
	}
	table.fill(sums, total)
	return table, s.end()
}

// addLines adds what the log says from an offset on. Of a pod that is taken on
// the time since the beginning counts.
func addLines(sums map[string]time.Duration, path string, offset int64, begin time.Time) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(offset, 0); err != nil {
		return err
	}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue // the last line may be half written
		}
		if l.Msg == "pod taken on" {
			l.Took = l.Time.Sub(begin)
		}
		sums[l.key()] += l.Took
	}
	return lines.Err()
}

// fill turns sums over all pods into the stages of one.
func (t *stageTable) fill(sums map[string]time.Duration, total time.Duration) {
	add := func(name string, d time.Duration) {
		t.Stages = append(t.Stages, stage{name, d.Seconds() * 1000 / float64(t.Pods*t.Rounds)})
	}
	sandbox, container := sums["start sandbox"], sums["start container c"]
	part := func(of *time.Duration, name, key string) {
		add(name, sums[key])
		*of -= sums[key]
	}
	add("manifest seen, read, pod admitted", sums["pod taken on"])
	add("cgroup", sums["ensure cgroup"])
	add("volumes", sums["set up volumes"])
	add("image looked up", sums["pull image of c"])
	part(&sandbox, "sandbox: waiting for a turn", "wait to start sandbox")
	part(&sandbox, "sandbox: lease in containerd", "Leases/Create")
	part(&sandbox, "sandbox: namespaces", "namespaces pinned")
	part(&sandbox, "sandbox: network, by CNI plugins", "network attached")
	add("sandbox: files and the rest", sandbox)
	part(&container, "container: waiting for a turn", "wait to start container c")
	part(&container, "container: snapshot in containerd", "Snapshots/Prepare")
	part(&container, "container: record in containerd", "Containers/Create")
	part(&container, "container: shim and runc create", "Tasks/Create")
	part(&container, "container: runc start", "Tasks/Start")
	add("container: spec, log and the rest", container)
	add("manifest → running", total)
}

// stageTables renders all tables side by side.
func (r *report) stageTables() string {
	if len(r.Stages) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## Where the time of a start goes\n\nMean of all pods in milliseconds, from an agent that logs its steps (`-v 4`). Cgroup, volumes and image are done side by side.\n\n| |")
	for _, t := range r.Stages {
		fmt.Fprintf(&b, " pods at once: %d |", t.Pods)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(r.Stages)) + "\n")
	for i := range r.Stages[0].Stages {
		fmt.Fprintf(&b, "| %s |", r.Stages[0].Stages[i].Name)
		for _, t := range r.Stages {
			fmt.Fprintf(&b, " %.1f |", t.Stages[i].Mean)
		}
		b.WriteString("\n")
	}
	return b.String()
}
