package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

type logsOptions struct {
	*clientFlags
	container                    string
	follow, previous, timestamps bool
	tail                         int64
	since                        time.Duration
	sinceTime                    string
	limitBytes                   int64
}

func newLogsCommand(f *clientFlags) *cobra.Command {
	o := &logsOptions{clientFlags: f}
	c := &cobra.Command{
		Use:               "logs POD [-c CONTAINER]",
		Short:             "Show the log of a container",
		Example:           "  nodeagent logs web -f --tail=20\n  nodeagent logs web -c sidecar --previous",
		Args:              cobra.RangeArgs(1, 2),
		RunE:              o.run,
		ValidArgsFunction: completePods(f),
	}
	o.podFlags(c)
	c.Flags().StringVarP(&o.container, "container", "c", "", "container (default: the first)")
	c.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on as lines are written")
	c.Flags().BoolVarP(&o.previous, "previous", "p", false, "the instance before the last restart")
	c.Flags().BoolVar(&o.timestamps, "timestamps", false, "show each line's time")
	c.Flags().Int64Var(&o.tail, "tail", -1, "only the last N lines (-1: all)")
	c.Flags().DurationVar(&o.since, "since", 0, "only lines newer than this, such as 5s, 2m or 3h")
	c.Flags().StringVar(&o.sinceTime, "since-time", "", "only lines after this RFC 3339 time")
	c.Flags().Int64Var(&o.limitBytes, "limit-bytes", 0, "at most this many bytes (0: no limit)")
	return c
}

func (o *logsOptions) run(c *cobra.Command, args []string) error {
	if o.since != 0 && o.sinceTime != "" {
		return errors.New("only one of --since and --since-time may be used")
	}
	if len(args) == 2 {
		o.container = args[1]
	}
	cl := newClient(o.socket)
	pod, err := cl.pod(c.Context(), o.namespace, args[0])
	if err != nil {
		return err
	}
	container, err := containerOf(pod, o.container)
	if err != nil {
		return err
	}
	body, err := cl.do(c.Context(), http.MethodGet, agentURL(o.query(), "containerLogs", pod.Namespace, pod.Name, container))
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(c.OutOrStdout(), body); err != nil && c.Context().Err() == nil {
		return fmt.Errorf("read log: %w", err)
	}
	return nil
}

func (o *logsOptions) query() url.Values {
	q := url.Values{}
	set := func(name string, on bool, value string) {
		if on {
			q.Set(name, value)
		}
	}
	set("follow", o.follow, "true")
	set("previous", o.previous, "true")
	set("timestamps", o.timestamps, "true")
	set("tailLines", o.tail >= 0, strconv.FormatInt(o.tail, 10))
	set("limitBytes", o.limitBytes > 0, strconv.FormatInt(o.limitBytes, 10))
	set("sinceTime", o.sinceTime != "", o.sinceTime)
	set("sinceTime", o.since > 0, time.Now().Add(-o.since).Format(time.RFC3339Nano))
	return q
}
