package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// figures is what one round has measured.
type figures struct {
	start, restart []time.Duration
	stop           time.Duration
}

// row is what was measured of one subject at one number of pods. Times are in
// seconds; totals are the median of all rounds.
type row struct {
	Subject      string  `json:"subject"`
	Pods         int     `json:"pods"`
	Rounds       int     `json:"rounds"`
	Start        spread  `json:"manifestToRunning"`
	StartTotal   float64 `json:"allRunning"`
	StopTotal    float64 `json:"allStopped"`
	Restart      spread  `json:"exitToRunning"`
	AdoptSeconds float64 `json:"adopted,omitempty"`

	rounds []figures
}

// spread is a distribution in seconds.
type spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// idleRow is what a subject costs while its pods do nothing.
type idleRow struct {
	Subject string `json:"subject"`
	Pods    int    `json:"pods"`
	Usage   usage  `json:"usage"`
}

// usage is CPU in percent of one core and memory in MB.
type usage struct {
	CPU           float64 `json:"cpuPercent"`
	ContainerdCPU float64 `json:"containerdCPUPercent"`
	RSS           float64 `json:"rssMB"`
	// Helpers is the memory of processes that the subject has started for itself,
	// where pages that it shares with them count in part.
	Helpers       float64 `json:"helpersMB,omitempty"`
	ContainerdRSS float64 `json:"containerdRSSMB"`
	// PerPod is how many processes each pod has besides its own.
	PerPod float64 `json:"processesPerPod,omitempty"`
}

func (r *row) summarize() {
	var start, restart []time.Duration
	var startTotal, stopTotal []time.Duration
	for _, f := range r.rounds {
		start, restart = append(start, f.start...), append(restart, f.restart...)
		startTotal, stopTotal = append(startTotal, slices.Max(f.start)), append(stopTotal, f.stop)
	}
	r.Rounds = len(r.rounds)
	r.Start = spread{quantile(start, 0.50), quantile(start, 0.99)}
	r.Restart = spread{quantile(restart, 0.50), quantile(restart, 0.99)}
	r.StartTotal, r.StopTotal = quantile(startTotal, 0.50), quantile(stopTotal, 0.50)
}

// quantile is in seconds; at least q of the times are not longer.
func quantile(times []time.Duration, q float64) float64 {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)].Seconds()
}

type report struct {
	Date     string            `json:"date"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Rows     []row             `json:"rows"`
	Idle     []idleRow         `json:"idle"`
	Stages   []stageTable      `json:"stages,omitempty"`
}

func newReport() *report { return &report{Date: time.Now().UTC().Format(time.DateOnly)} }

// describe says what is measured on what.
func (r *report) describe(ctx context.Context, m *machine) error {
	if r.Versions != nil {
		return nil
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	cgroups := "cgroup v1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		cgroups = "cgroup v2"
	}
	r.Machine = fmt.Sprintf("%d CPUs, Linux %s, %s, driver cgroupfs, overlayfs, bridge CNI", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), cgroups)
	versions := map[string]string{}
	for _, p := range []struct {
		name, path, flag string
		field            int // of the first line that it prints
	}{
		{"nodeagent", m.o.agent, "version", 1}, {"kubelet", m.o.kubelet, "--version", 1},
		{"containerd", m.tools + "/bin/containerd", "--version", 2}, {"runc", m.tools + "/bin/runc", "--version", 2},
	} {
		if _, err := os.Stat(p.path); errors.Is(err, fs.ErrNotExist) {
			continue // a kubelet is not needed; what is needed has been found before
		}
		v, err := version(ctx, p.field, p.path, p.flag)
		if err != nil {
			return err
		}
		versions[p.name] = v
	}
	r.Versions = versions
	return nil
}

func (r *report) row(subject string, pods int) *row {
	i := slices.IndexFunc(r.Rows, func(x row) bool { return x.Subject == subject && x.Pods == pods })
	if i < 0 {
		return nil
	}
	return &r.Rows[i]
}

func (r *report) idle(subject string, pods int) *usage {
	i := slices.IndexFunc(r.Idle, func(x idleRow) bool { return x.Subject == subject && x.Pods == pods })
	if i < 0 {
		return nil
	}
	return &r.Idle[i].Usage
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
		"results.json": string(data) + "\n", "results.md": r.markdown(), "results.svg": r.plot(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

// markdown renders everything for people.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measured on %s\n\n%s. ", r.Date, r.Machine)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, "%s %s. ", name, r.Versions[name])
	}
	b.WriteString("Made by `make bench`; what is measured and how is in [README.md](README.md).\n\n![start and stop over the number of pods](results.svg)\n")
	b.WriteString("\n## Start, stop, restart\n\nSeconds; in parentheses, times the floor of the same run.\n\n")
	b.WriteString("| pods | | manifest → running p50 | p99 | all running | all stopped | exit → running p50 | p99 | killed agent → adopted |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, x := range r.Rows {
		f := r.row("floor", x.Pods)
		if f == nil || x.Subject == "floor" {
			f = &row{}
		}
		fmt.Fprintf(&b, "| %d | %s | %.3f | %.3f | %s | %s | %s | %.3f | %s |\n", x.Pods, x.Subject, x.Start.P50, x.Start.P99,
			times(x.StartTotal, f.StartTotal), times(x.StopTotal, f.StopTotal), times(x.Restart.P50, f.Restart.P50), x.Restart.P99, orDash(x.AdoptSeconds))
	}
	b.WriteString("\n## Idle\n\nCPU in percent of one core, with that of helper processes; resident memory in MB; processes that each pod has besides its own.\n\n")
	b.WriteString("| pods | | CPU | CPU of containerd | memory | memory of helpers | memory of containerd | processes per pod |\n|---|---|---|---|---|---|---|---|\n")
	for _, x := range r.Idle {
		u := x.Usage
		fmt.Fprintf(&b, "| %d | %s | %.2f | %.2f | %s | %s | %.0f | %s |\n", x.Pods, x.Subject, u.CPU, u.ContainerdCPU, orDash(u.RSS), orDash(u.Helpers), u.ContainerdRSS, orDash(u.PerPod))
	}
	b.WriteString(r.verdicts())
	b.WriteString(r.stageTables())
	return b.String()
}

// times writes a value and how many times another it is.
func times(v, floor float64) string {
	if floor == 0 {
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.3f (%.2f)", v, v/floor)
}

func orDash(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}
