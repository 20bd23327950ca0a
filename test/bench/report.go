package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// row is what was measured of one subject at one number of pods. Times are in seconds.
type row struct {
	Subject      string  `json:"subject"`
	Pods         int     `json:"pods"`
	Start        summary `json:"start"`
	StopSeconds  float64 `json:"stopSeconds"`
	Restart      summary `json:"exitToRunning"`
	AdoptSeconds float64 `json:"adoptSeconds,omitempty"`
	Idle         usage   `json:"idle"`
	IdleEmpty    usage   `json:"idleWithoutPods"`
}

// summary is a distribution in seconds; Total is from the first start to the last end.
type summary struct {
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Total float64 `json:"total"`
}

// usage is what idle processes cost: CPU in percent of one core, memory in MB.
type usage struct {
	AgentCPU      float64 `json:"agentCPUPercent"`
	ContainerdCPU float64 `json:"containerdCPUPercent"`
	AgentRSS      float64 `json:"agentRSSMB"`
	ContainerdRSS float64 `json:"containerdRSSMB"`
}

func summarize(times []time.Duration) summary {
	if len(times) == 0 {
		return summary{}
	}
	sorted := slices.Sorted(slices.Values(times))
	at := func(q float64) float64 {
		return sorted[int(math.Ceil(q*float64(len(sorted))))-1].Seconds()
	}
	return summary{P50: at(0.50), P99: at(0.99), Total: sorted[len(sorted)-1].Seconds()}
}

type report struct {
	Date string `json:"date"`
	Rows []row  `json:"rows"`
}

func newReport() *report { return &report{Date: time.Now().UTC().Format(time.DateOnly)} }

func (r *report) add(x row) { r.Rows = append(r.Rows, x) }

// target is a number to beat: seconds, or a share of the floor.
type target struct {
	pods  int
	name  string
	value func(row) float64
	limit float64
}

func targets() []target {
	total := func(r row) float64 { return r.Start.Total }
	stop := func(r row) float64 { return r.StopSeconds }
	return []target{
		{1, "start", total, 0.13},
		{50, "start", total, 3.2},
		{100, "start", total, 7},
		{250, "start", total, 18},
		{250, "stop", stop, 9},
		{1, "exit to running", func(r row) float64 { return r.Restart.P50 }, 0.1},
		{100, "agent restart to all adopted", func(r row) float64 { return r.AdoptSeconds }, 1},
		{100, "idle CPU % of agent and containerd", func(r row) float64 { return r.Idle.AgentCPU + r.Idle.ContainerdCPU }, 0.5},
		{250, "idle CPU % of agent and containerd", func(r row) float64 { return r.Idle.AgentCPU + r.Idle.ContainerdCPU }, 1},
		{1, "agent RSS in MB without pods", func(r row) float64 { return r.IdleEmpty.AgentRSS }, 35},
		{100, "agent RSS in MB", func(r row) float64 { return r.Idle.AgentRSS }, 50},
		{250, "agent RSS in MB", func(r row) float64 { return r.Idle.AgentRSS }, 60},
	}
}

// table renders everything as Markdown, with each target met or missed.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measured on %s\n\nSeconds unless said otherwise. The floor is a bare loop over the same containerd and CNI calls, in the same run.\n\n", r.Date)
	b.WriteString("| | pods | start p50 | start p99 | all started | all stopped | exit → running p50 | adopted by a new agent | idle CPU % agent + containerd | RSS MB agent + containerd |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, x := range r.Rows {
		fmt.Fprintf(&b, "| %s | %d | %.3f | %.3f | %.2f | %.2f | %.3f | %s | %.2f + %.2f | %.0f + %.0f |\n", x.Subject, x.Pods,
			x.Start.P50, x.Start.P99, x.Start.Total, x.StopSeconds, x.Restart.P50, orDash(x.AdoptSeconds),
			x.Idle.AgentCPU, x.Idle.ContainerdCPU, x.Idle.AgentRSS, x.Idle.ContainerdRSS)
	}
	b.WriteString("\n| target | at pods | limit | measured | |\n|---|---|---|---|---|\n")
	for _, t := range targets() {
		i := slices.IndexFunc(r.Rows, func(x row) bool { return x.Subject == "nodeagent" && x.Pods == t.pods })
		if i < 0 {
			continue
		}
		got, verdict := t.value(r.Rows[i]), "met"
		if got > t.limit {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %d | %g | %.3f | %s |\n", t.name, t.pods, t.limit, got, verdict)
	}
	return b.String()
}

func orDash(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

// write stores the report as JSON, Markdown and a plot.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"results.json": string(data) + "\n", "results.md": r.table(), "start.svg": r.plot(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

// plot draws "all started" over the number of pods, one line for each subject.
func (r *report) plot() string {
	const width, height, margin = 640.0, 360.0, 48.0
	maxX, maxY := 1.0, 0.1
	series := map[string][][2]float64{}
	var names []string
	for _, x := range r.Rows {
		maxX, maxY = max(maxX, float64(x.Pods)), max(maxY, x.Start.Total)
		if _, known := series[x.Subject]; !known {
			names = append(names, x.Subject)
		}
		series[x.Subject] = append(series[x.Subject], [2]float64{float64(x.Pods), x.Start.Total})
	}
	px := func(v float64) float64 { return margin + v/maxX*(width-2*margin) }
	py := func(v float64) float64 { return height - margin - v/maxY*(height-2*margin) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<path d="M%g %gV%gH%g" fill="none" stroke="#333"/>`+"\n", margin, margin, py(0), width-margin)
	fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle">pods (up to %g)</text><text x="8" y="%g">seconds until all run (up to %.1f)</text>`+"\n",
		width/2, height-12, maxX, margin-16, maxY)
	colours := []string{"#0b6e4f", "#999999", "#c1440e"}
	for i, name := range names {
		var path []string
		for _, p := range series[name] {
			path = append(path, fmt.Sprintf("%.1f,%.1f", px(p[0]), py(p[1])))
		}
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(path, " "), colour)
		fmt.Fprintf(&b, `<text x="%g" y="%g" fill="%s">%s</text>`+"\n", margin+12, margin+16*float64(i+1), colour, name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
