package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

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
	terminal bool
}

// Run shows the table until ctx ends.
func (l *liveTable) Run(ctx context.Context) error {
	if !l.terminal {
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
	var b bytes.Buffer
	if drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", drawn)
	}
	t := l.table()
	pods := l.board.List()
	for i := range pods {
		t.add(l.row(&pods[i]))
	}
	var body bytes.Buffer
	if err := t.print(&body, true); err != nil {
		return 0, err
	}
	b.Write(body.Bytes())
	_, err := l.out.Write(b.Bytes())
	return strings.Count(body.String(), "\n"), err
}

func (l *liveTable) lines(ctx context.Context) error {
	header := true
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
		t := l.table()
		t.add(row)
		err := t.print(l.out, header)
		header = false
		return err
	})
}

func (l *liveTable) table() *table {
	t := podTable(true, false)
	t.header = append(t.header, "CGROUP")
	return t
}

func (l *liveTable) row(p *corev1.Pod) []string {
	return append(podRow(p, time.Now(), true, false), orNone(l.cgroupOf(p.UID)))
}
