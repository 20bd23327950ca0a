package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// panel is one diagram: seconds over the number of pods, a line for each subject.
type panel struct {
	title string
	value func(row) float64
	left  float64
}

const (
	panelWidth, panelHeight = 400.0, 300.0
	marginLeft, marginTop   = 48.0, 40.0
	marginBottom            = 44.0
	plotWidth, plotHeight   = panelWidth - marginLeft - 84, panelHeight - marginTop - marginBottom
)

// plot draws how the time to start and to stop grows with the number of pods.
func (r *report) plot() string {
	panels := []panel{
		{"all running, seconds", func(x row) float64 { return x.StartTotal }, 0},
		{"all stopped, seconds", func(x row) float64 { return x.StopTotal }, panelWidth},
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="11">`+"\n", 2*panelWidth, panelHeight)
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	for _, p := range panels {
		p.draw(&b, r.Rows)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p panel) draw(b *strings.Builder, rows []row) {
	maxX, maxY := 1.0, 0.1
	for _, x := range rows {
		maxX, maxY = max(maxX, float64(x.Pods)), max(maxY, p.value(x))
	}
	px := func(v float64) float64 { return p.left + marginLeft + v/maxX*plotWidth }
	py := func(v float64) float64 { return marginTop + (1-v/maxY)*plotHeight }
	fmt.Fprintf(b, `<text x="%g" y="20" font-size="13" fill="#222">%s</text>`+"\n", p.left+marginLeft, p.title)
	for _, v := range ticks(maxY) {
		fmt.Fprintf(b, `<path d="M%.1f %.1fH%.1f" stroke="#ddd"/><text x="%.1f" y="%.1f" text-anchor="end" fill="#555">%g</text>`+"\n",
			px(0), py(v), px(maxX), px(0)-6, py(v)+4, v)
	}
	for _, v := range ticks(maxX) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">%g</text>`+"\n", px(v), py(0)+16, v)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">pods</text>`+"\n", px(maxX/2), py(0)+34)
	lastLabel := math.Inf(-1)
	for _, s := range p.lines(rows) {
		var points []string
		for _, x := range s.rows {
			points = append(points, fmt.Sprintf("%.1f,%.1f", px(float64(x.Pods)), py(p.value(x))))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", px(float64(x.Pods)), py(p.value(x)), s.colour)
		}
		end := s.rows[len(s.rows)-1]
		lastLabel = max(py(p.value(end))+4, lastLabel+13) // lines that end close together
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.8"/>`+"\n", strings.Join(points, " "), s.colour)
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="%s">%s %.1f</text>`+"\n", px(float64(end.Pods))+6, lastLabel, s.colour, end.Subject, p.value(end))
	}
}

type series struct {
	rows   []row
	colour string
}

// lines are the subjects, that with the highest end first.
func (p panel) lines(rows []row) []series {
	colours := map[string]string{"nodeagent": "#0b6e4f", "floor": "#777", "kubelet": "#c1440e"}
	var all []series
	for _, x := range rows {
		i := slices.IndexFunc(all, func(s series) bool { return s.rows[0].Subject == x.Subject })
		if i < 0 {
			all = append(all, series{colour: colours[x.Subject]})
			i = len(all) - 1
		}
		all[i].rows = append(all[i].rows, x)
	}
	slices.SortFunc(all, func(a, b series) int {
		if p.value(a.rows[len(a.rows)-1]) > p.value(b.rows[len(b.rows)-1]) {
			return -1
		}
		return 1
	})
	return all
}

// ticks are round numbers from 0 to limit, about five.
func ticks(limit float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(limit)))
	for _, f := range []float64{0.1, 0.2, 0.5, 1} {
		if limit/(step*f) <= 6 {
			step *= f
			break
		}
	}
	var out []float64
	for i := 0; float64(i)*step <= limit; i++ {
		out = append(out, float64(i)*step)
	}
	return out
}
