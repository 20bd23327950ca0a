// Command bench measures runtimes of pods from manifest files: how long pods take
// to start and to stop, how soon a container that exited runs again, how long a
// new agent needs to take over, and what all that costs while nothing happens.
//
// It measures the agent, the floor (a bare loop over the containerd and CNI calls
// that any such runtime must make, with no agent around it), and a kubelet where
// there is one: one after the other, in one run, on one containerd with one
// network. Quote ratios; absolute times belong to the machine and its moment.
//
// It needs root. Everything it starts lives in PID, mount and network namespaces
// and in a cgroup of its own, which end with it however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	agent   string
	kubelet string // where there is none, none is measured
	repo    string
	out     string
	counts  []int
	idle    time.Duration
	limit   time.Duration
	// dir is where everything lies; set by the outer process for the inner one.
	dir string
}

func main() {
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case o.dir == "":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = outside(ctx, o)
		stop()
	case os.Getpid() == 1:
		err = reap()
	default:
		err = inside(context.Background(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	var counts string
	var short bool
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.agent, "agent", "bin/nodeagent", "the agent's binary")
	f.StringVar(&o.kubelet, "kubelet", ".cache/peers/kubelet", "a kubelet's binary; it is left out if there is none")
	f.StringVar(&o.repo, "repo", ".", "where .cache with tools is")
	f.StringVar(&o.out, "out", "docs/bench", "directory for the results")
	f.StringVar(&counts, "pods", "1,10,50,100,250", "numbers of pods to measure with")
	f.DurationVar(&o.idle, "idle", 30*time.Second, "how long to watch idle processes")
	f.DurationVar(&o.limit, "limit", 25*time.Minute, "end the run after this time")
	f.BoolVar(&short, "short", false, "a quick look: 1, 10 and 50 pods, 5 s of idleness")
	f.StringVar(&o.dir, "dir", "", "set by the bench for itself")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if short {
		counts, o.idle = "1,10,50", 5*time.Second
	}
	for s := range strings.SplitSeq(counts, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return o, fmt.Errorf("-pods: %q is not a number of pods", s)
		}
		o.counts = append(o.counts, n)
	}
	return o, nil
}

// inside measures everything and writes the results after each number of pods,
// so that a run which is interrupted or fails leaves what it has.
func inside(ctx context.Context, o options) error {
	if err := settleIn(); err != nil {
		return err
	}
	report := newReport()
	for _, n := range []int{1, min(big, slices.Max(o.counts))} {
		stages, err := measureStages(ctx, o, n)
		if err != nil {
			return fmt.Errorf("stages of %d pods: %w", n, err)
		}
		report.Stages = append(report.Stages, stages)
	}
	for _, n := range o.counts {
		err := measureAll(ctx, o, n, report)
		if err := errors.Join(err, report.write(o.out)); err != nil {
			return fmt.Errorf("%d pods: %w", n, err)
		}
	}
	fmt.Print(report.markdown())
	return nil
}
