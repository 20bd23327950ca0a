package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

type logsOptions struct {
	*clientFlags
	container, selector          string
	follow, previous, timestamps bool
	allContainers, prefix        bool
	tail                         int64
	since                        time.Duration
	sinceTime                    string
	limitBytes                   int64
}

func newLogsCommand(f *clientFlags) *cobra.Command {
	o := &logsOptions{clientFlags: f}
	c := &cobra.Command{
		Use:               "logs POD [-c CONTAINER] | logs -l SELECTOR",
		Short:             "Show the log of a container, or of several",
		Example:           "  nodeagent logs web -f --tail=20\n  nodeagent logs web -c sidecar --previous\n  nodeagent logs -l app=web --all-containers --prefix -f",
		Args:              cobra.MaximumNArgs(2),
		RunE:              o.run,
		ValidArgsFunction: completePods(f),
	}
	o.podFlags(c)
	c.Flags().StringVarP(&o.container, "container", "c", "", "container (default: the first)")
	c.Flags().StringVarP(&o.selector, "selector", "l", "", "the pods with these labels instead of one by name")
	c.Flags().BoolVar(&o.allContainers, "all-containers", false, "all containers of the pod, init containers included")
	c.Flags().BoolVar(&o.prefix, "prefix", false, "begin each line with its pod and container")
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
	switch {
	case o.since != 0 && o.sinceTime != "":
		return errors.New("only one of --since and --since-time may be used")
	case o.since < 0:
		return errors.New("--since must be above 0")
	case (len(args) == 0) == (o.selector == ""):
		return errors.New("name one pod, or select some with -l")
	case len(args) == 2 && o.container != "":
		return errors.New("name the container once")
	case o.allContainers && (o.container != "" || len(args) == 2):
		return errors.New("either one container or --all-containers")
	}
	if len(args) == 2 {
		o.container = args[1]
	}
	if o.selector != "" && !c.Flags().Changed("tail") {
		o.tail = 10 // of each, as kubectl does
	}
	cl := newClient(o.socket)
	sources, err := o.sources(c, cl, args)
	if err != nil {
		return err
	}
	out := &lineWriter{w: c.OutOrStdout()}
	if !o.follow || len(sources) == 1 {
		var errs []error
		for _, s := range sources {
			errs = append(errs, o.copyLog(c.Context(), cl, s, out))
		}
		return errors.Join(errs...)
	}
	ended := make(chan error, len(sources))
	for _, s := range sources {
		go func() { ended <- o.copyLog(c.Context(), cl, s, out) }()
	}
	var errs []error
	for range sources {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// logSource is a container whose log is wanted.
type logSource struct{ namespace, pod, container string }

// sources finds the containers that the user means.
func (o *logsOptions) sources(c *cobra.Command, cl *client, args []string) ([]logSource, error) {
	pods, err := o.selectPods(c.Context(), cl, args)
	if err != nil {
		return nil, err
	}
	var sources []logSource
	for i := range pods {
		pod := &pods[i]
		names := containerNames(pod)
		if !o.allContainers {
			name, err := containerOf(pod, o.container)
			if err != nil {
				return nil, err
			}
			if o.container == "" && len(names) > 1 {
				fmt.Fprintf(c.ErrOrStderr(), "Defaulted container %q out of: %s\n", name, strings.Join(names, ", "))
			}
			names = []string{name}
		}
		for _, name := range names {
			sources = append(sources, logSource{pod.Namespace, pod.Name, name})
		}
	}
	return sources, nil
}

// selectPods finds one pod by name or several by their labels.
func (o *logsOptions) selectPods(ctx context.Context, cl *client, args []string) ([]corev1.Pod, error) {
	if len(args) > 0 {
		pod, err := cl.pod(ctx, o.namespace, args[0])
		if err != nil {
			return nil, err
		}
		return []corev1.Pod{*pod}, nil
	}
	selector, err := labels.Parse(o.selector)
	if err != nil {
		return nil, fmt.Errorf("--selector: %w", err)
	}
	all, err := cl.pods(ctx)
	if err != nil {
		return nil, err
	}
	pods := slices.DeleteFunc(all, func(p corev1.Pod) bool {
		return p.Namespace != o.namespace || !selector.Matches(labels.Set(p.Labels))
	})
	if len(pods) == 0 {
		return nil, fmt.Errorf("no pod in namespace %q has labels %s", o.namespace, o.selector)
	}
	return pods, nil
}

// copyLog writes one container's log to out.
func (o *logsOptions) copyLog(ctx context.Context, cl *client, s logSource, out *lineWriter) error {
	body, err := cl.do(ctx, http.MethodGet, agentURL(o.query(), "containerLogs", s.namespace, s.pod, s.container))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // broken off before the first line, with which the answer begins
	case err != nil:
		return err
	}
	defer body.Close()
	switch {
	case o.prefix:
		err = out.copyLines(body, fmt.Sprintf("[pod/%s/%s] ", s.pod, s.container))
	case o.follow && o.allContainers || o.follow && o.selector != "":
		err = out.copyLines(body, "") // several write at the same time
	default:
		_, err = io.Copy(out, body)
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("read the log of container %s: the agent has stopped or met an error (see its own log)", s.container)
	default:
		return fmt.Errorf("read the log of container %s: %w", s.container, err)
	}
}

// lineWriter is shared by the logs that are followed at the same time.
type lineWriter struct {
	mu sync.Mutex // held while writing, so that lines stay whole
	w  io.Writer
}

// Write implements io.Writer.
func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// copyLines passes on whole lines, each with a prefix.
func (l *lineWriter) copyLines(r io.Reader, prefix string) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			if _, err := l.Write(append([]byte(prefix), line...)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
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
