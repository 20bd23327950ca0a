// Command bench measures the agent: how long pods take to start and to stop, how
// soon an exited container runs again, how long a new agent needs to take over,
// and what agent and containerd cost while nothing happens.
//
// Beside every number stands the floor: a bare loop over the same containerd and
// CNI calls with no agent around it, in the same run on the same containerd. Quote
// ratios; absolute times belong to the machine.
//
// It needs root, works in directories, a network namespace and a cgroup of its
// own, and writes JSON, a Markdown table and a plot.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	agent  string
	repo   string
	out    string
	counts []int
	idle   time.Duration
}

func main() {
	var o options
	var counts string
	flag.StringVar(&o.agent, "agent", "bin/nodeagent", "the agent's binary")
	flag.StringVar(&o.repo, "repo", ".", "where .cache with tools and images is")
	flag.StringVar(&o.out, "out", "docs/bench", "directory for the results")
	flag.StringVar(&counts, "pods", "1,10,50,100,250", "numbers of pods to measure with")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "how long to watch idle processes")
	flag.Parse()
	for s := range strings.SplitSeq(counts, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "bench: -pods: %q is not a number of pods\n", s)
			os.Exit(2)
		}
		o.counts = append(o.counts, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	report := newReport()
	for _, n := range o.counts {
		if err := measure(ctx, o, n, report); err != nil {
			return fmt.Errorf("%d pods: %w", n, err)
		}
		if err := report.write(o.out); err != nil { // after each count, so that an interrupted run leaves something
			return err
		}
	}
	fmt.Print(report.table())
	return nil
}

// measure takes all figures for one number of pods, on a fresh machine.
func measure(ctx context.Context, o options, pods int, report *report) (err error) {
	b, err := newBed(o)
	if err != nil {
		return err
	}
	defer func() {
		if e := b.remove(); err == nil {
			err = e
		}
	}()
	if err := b.startAgent(ctx); err != nil {
		return err
	}
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.close()

	if err := b.warm(ctx, w); err != nil {
		return fmt.Errorf("first pod: %w", err)
	}
	idle0, err := b.idle(ctx, o.idle)
	if err != nil {
		return err
	}
	start, err := b.startPods(ctx, w, pods)
	if err != nil {
		return err
	}
	idle, err := b.idle(ctx, o.idle)
	if err != nil {
		return err
	}
	restart, err := b.restarts(ctx, w, min(pods, 10))
	if err != nil {
		return err
	}
	adopt, err := b.adopt(ctx, pods)
	if err != nil {
		return err
	}
	stop, err := b.stopPods(ctx, w, pods)
	if err != nil {
		return err
	}
	report.add(row{
		Subject: "nodeagent", Pods: pods, Start: summarize(start), StopSeconds: stop.Seconds(), Restart: summarize(restart),
		AdoptSeconds: adopt.Seconds(), Idle: idle, IdleEmpty: idle0,
	})
	floor, err := b.floor(ctx, pods)
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	report.add(floor)
	return nil
}
