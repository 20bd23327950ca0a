package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/podstatus"
)

// liveTable shows the pods of this machine while the agent runs in the
// foreground. On a terminal it redraws itself; elsewhere it prints a line for
// each change.
type liveTable struct {
	board    *podstatus.Board
	cgroupOf func(types.UID) string
	out      io.Writer
	// size is the terminal's, or nil when out is none.
	size func() (width, height int, err error)
}

// Run shows the table until ctx ends.
func (l *liveTable) Run(ctx context.Context) error {
	if l.size == nil {
		return l.lines(ctx)
	}
	wake := make(chan struct{}, 1)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		done <- l.board.Watch(ctx, func(podstatus.Change) error {
			select {
			case wake <- struct{}{}:
			default: // one redraw shows every change so far
			}
			return nil
		})
	}()
	drawn := 0
	for {
		select {
		case err := <-done:
			return err
		case <-wake:
		}
		var err error
		if drawn, err = l.redraw(drawn); err != nil {
			return fmt.Errorf("draw the pod table: %w", err)
		}
	}
}

// redraw replaces the lines drawn before and returns how many there are now.
func (l *liveTable) redraw(drawn int) (int, error) {
	width, height, err := l.size()
	if err != nil {
		return 0, fmt.Errorf("size of the terminal: %w", err)
	}
	lines, err := l.frame(l.board.List(), width, height)
	if err != nil {
		return 0, err
	}
	text := strings.Join(lines, "\n") + "\n"
	if drawn > 0 {
		text = fmt.Sprintf("\x1b[%dA\x1b[J", drawn) + text
	}
	_, err = io.WriteString(l.out, text)
	return len(lines), err
}

// frame is the table as it fits into a terminal: no line may wrap and none may
// scroll away, or the next frame would be drawn in the wrong place. Where a line
// is too narrow for the cgroup, it has a line of its own.
func (l *liveTable) frame(pods []corev1.Pod, width, height int) ([]string, error) {
	full := l.table()
	narrow := &table{header: []string{"NAME", "READY", "STATUS", "IP", "QOS"}}
	for i := range pods {
		row := l.row(&pods[i])
		full.add(row)
		narrow.add([]string{row[0], row[1], row[2], row[5], row[6]})
	}
	lines, err := full.lines()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(lines, func(line string) bool { return utf8.RuneCountInString(line) > width }) {
		short, err := narrow.lines()
		if err != nil {
			return nil, err
		}
		lines = []string{short[0]}
		for i, line := range short[1:] {
			lines = append(lines, line, "  "+full.rows[i][len(full.header)-1])
		}
	}
	if room := height - 1; room > 0 && len(lines) > room { // the cursor stands below the last line
		more := len(lines) - room + 1
		lines = append(lines[:room-1:room-1], fmt.Sprintf("… and %d lines more", more))
	}
	for i, line := range lines {
		if r := []rune(line); width > 0 && len(r) > width {
			lines[i] = string(r[:width-1]) + "…"
		}
	}
	return lines, nil
}

func (l *liveTable) lines(ctx context.Context) error {
	header := true
	t := l.table()
	last := map[types.UID]string{}
	return l.board.Watch(ctx, func(c podstatus.Change) error {
		row := l.row(&c.Pod)
		if c.Type == "DELETED" {
			delete(last, c.Pod.UID)
			_, err := fmt.Fprintf(l.out, "%s is gone\n", c.Pod.Name)
			return err
		}
		key := strings.Join(append(row[:3:3], row[5:]...), "|")
		if last[c.Pod.UID] == key {
			return nil // only the age differs
		}
		last[c.Pod.UID] = key
		t.rows = [][]string{row}
		err := t.print(l.out, header)
		header = false
		return err
	})
}

func (l *liveTable) table() *table {
	return &table{header: []string{"NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "QOS", "CGROUP"}}
}

func (l *liveTable) row(p *corev1.Pod) []string {
	row := podRow(p, time.Now(), true, false)
	return append(append(row[:6:6], row[7:]...), orNone(l.cgroupOf(p.UID))) // the node is always this one
}
