package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"
)

// table prints rows in columns, as kubectl does. A table that is printed again
// keeps the widths it had, so that rows which come later line up.
type table struct {
	header []string
	rows   [][]string
	widths []int
}

// columnGap is the space between columns.
const columnGap = 3

func (t *table) add(row []string) { t.rows = append(t.rows, row) }

func (t *table) print(out io.Writer, withHeader bool) error {
	lines := t.rows
	if withHeader {
		lines = append([][]string{t.header}, lines...)
	}
	for _, line := range append([][]string{t.header}, lines...) {
		t.widen(line)
	}
	var b strings.Builder
	for _, line := range lines {
		for i, cell := range line {
			b.WriteString(cell)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+columnGap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// lines are those that print writes.
func (t *table) lines() ([]string, error) {
	var b strings.Builder
	if err := t.print(&b, true); err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"), nil
}

// widen makes the columns as wide as a line's cells. The last cell needs no
// room: nothing follows it.
func (t *table) widen(line []string) {
	for i, cell := range line {
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		if i < len(line)-1 {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
}

func podTable(wide, namespaces bool) *table {
	t := &table{}
	if namespaces {
		t.header = append(t.header, "NAMESPACE")
	}
	t.header = append(t.header, "NAME", "READY", "STATUS", "RESTARTS", "AGE")
	if wide {
		t.header = append(t.header, "IP", "NODE", "QOS")
	}
	return t
}

func podRow(p *corev1.Pod, now time.Time, wide, namespaces bool) []string {
	var row []string
	if namespaces {
		row = append(row, p.Namespace)
	}
	ready, restarts, last := 0, 0, time.Time{}
	for _, s := range countedStatuses(p) {
		if s.Ready {
			ready++
		}
		restarts += int(s.RestartCount)
		if t := s.LastTerminationState.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	restartText := strconv.Itoa(restarts)
	if restarts > 0 && !last.IsZero() {
		restartText += " (" + duration.HumanDuration(now.Sub(last)) + " ago)"
	}
	age := "<unknown>"
	if p.Status.StartTime != nil {
		age = duration.HumanDuration(now.Sub(p.Status.StartTime.Time))
	}
	row = append(row, p.Name, fmt.Sprintf("%d/%d", ready, len(p.Spec.Containers)+sidecars(p)), cmp.Or(pulling(p), podState(p)), restartText, age)
	if wide {
		row = append(row, orNone(p.Status.PodIP), orNone(p.Spec.NodeName), orNone(string(p.Status.QOSClass)))
	}
	return row
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func sidecars(p *corev1.Pod) int {
	n := 0
	for i := range p.Spec.InitContainers {
		if isSidecar(&p.Spec.InitContainers[i]) {
			n++
		}
	}
	return n
}

// countedStatuses are the statuses that READY and RESTARTS count: app
// containers and sidecars.
func countedStatuses(p *corev1.Pod) []corev1.ContainerStatus {
	out := append([]corev1.ContainerStatus(nil), p.Status.ContainerStatuses...)
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; isSidecar(c) {
			for _, s := range p.Status.InitContainerStatuses {
				if s.Name == c.Name {
					out = append(out, s)
				}
			}
		}
	}
	return out
}

// podState is the STATUS column: the most telling reason, else the phase.
func podState(p *corev1.Pod) string {
	state := string(p.Status.Phase)
	if p.Status.Reason != "" {
		state = p.Status.Reason
	}
	if s, busy := initState(p); busy {
		state = s
	} else {
		state = appState(p, state)
	}
	if p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
		state = "Terminating"
	}
	return state
}

// initState describes a pod that has not finished its init containers.
func initState(p *corev1.Pod) (string, bool) {
	for i, s := range p.Status.InitContainerStatuses {
		switch {
		case s.State.Terminated != nil && s.State.Terminated.ExitCode == 0:
			continue
		case s.Started != nil && *s.Started && i < len(p.Spec.InitContainers) && isSidecar(&p.Spec.InitContainers[i]):
			continue
		case s.State.Terminated != nil:
			return "Init:" + terminatedReason(s.State.Terminated), true
		case s.State.Waiting != nil && s.State.Waiting.Reason != "" && s.State.Waiting.Reason != "PodInitializing":
			return "Init:" + s.State.Waiting.Reason, true
		default:
			return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers)), true
		}
	}
	return "", false
}

// appState describes a pod by its app containers; state is what to say otherwise.
func appState(p *corev1.Pod, state string) string {
	running := false
	for _, s := range slices.Backward(p.Status.ContainerStatuses) {

		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			state = s.State.Waiting.Reason
		case s.State.Terminated != nil:
			state = terminatedReason(s.State.Terminated)
		case s.Ready && s.State.Running != nil:
			running = true
		}
	}
	if state == "Completed" && running {
		return "Running"
	}
	return state
}

func terminatedReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", t.ExitCode)
	}
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// checkOutput refuses an output format before anything is asked of the agent.
func checkOutput(format string, tables ...string) error {
	if format == "" || format == "json" || format == "yaml" || strings.HasPrefix(format, "jsonpath=") || slices.Contains(tables, format) {
		return nil
	}
	return fmt.Errorf("unknown output format %q: use one of %s", format, strings.Join(append(tables, "json", "yaml", "jsonpath=TEMPLATE"), ", "))
}

// printObject writes object as json, yaml or through a jsonpath template.
func printObject(out io.Writer, format string, object any) error {
	data, err := json.MarshalIndent(object, "", "    ")
	if err != nil {
		return err
	}
	template, isPath := strings.CutPrefix(format, "jsonpath=")
	switch {
	case format == "json":
		_, err = fmt.Fprintln(out, string(data))
	case format == "yaml":
		if data, err = yaml.JSONToYAML(data); err == nil {
			_, err = out.Write(data)
		}
	case isPath:
		var generic any
		if err := json.Unmarshal(data, &generic); err != nil {
			return err
		}
		jp := jsonpath.New("output").AllowMissingKeys(true)
		if err := jp.Parse(template); err != nil {
			return fmt.Errorf("jsonpath %q: %w", template, err)
		}
		err = jp.Execute(out, generic)
	default:
		return fmt.Errorf("unknown output format %q: use json, yaml or jsonpath=TEMPLATE", format)
	}
	return err
}
