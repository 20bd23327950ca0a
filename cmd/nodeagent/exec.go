package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy" //nolint:staticcheck // client-go's executor takes no other
	"k8s.io/client-go/tools/remotecommand"
)

type streamFlags struct {
	*clientFlags
	container  string
	stdin, tty bool
}

func (o *streamFlags) add(c *cobra.Command) {
	o.podFlags(c)
	c.Flags().StringVarP(&o.container, "container", "c", "", "container (default: the first)")
	c.Flags().BoolVarP(&o.stdin, "stdin", "i", false, "pass stdin on")
	c.Flags().BoolVarP(&o.tty, "tty", "t", false, "stdin is a terminal")
}

func newExecCommand(f *clientFlags) *cobra.Command {
	o := &streamFlags{clientFlags: f}
	c := &cobra.Command{
		Use:     "exec POD [-c CONTAINER] [-it] -- COMMAND [ARG...]",
		Short:   "Run a command in a container",
		Example: "  nodeagent exec web -- ls /\n  nodeagent exec -it web -c app -- sh",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("name a pod and a command: %s", c.UseLine())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), "exec", args[0], args[1:])
		},
		ValidArgsFunction:     completePods(f),
		DisableFlagsInUseLine: true, // behind the command they would be its own
	}
	o.add(c)
	return c
}

func newAttachCommand(f *clientFlags) *cobra.Command {
	o := &streamFlags{clientFlags: f}
	c := &cobra.Command{
		Use:   "attach POD [-c CONTAINER] [-it]",
		Short: "Connect to the main process of a container",
		Args:  oneArg("one pod"),
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), "attach", args[0], nil)
		},
		ValidArgsFunction: completePods(f),
	}
	o.add(c)
	return c
}

// run opens the streams of an exec or attach and carries them until one side ends.
func (o *streamFlags) run(ctx context.Context, verb, podName string, command []string) error {
	cl := newClient(o.socket)
	pod, err := cl.pod(ctx, o.namespace, podName)
	if err != nil {
		return err
	}
	container, err := containerOf(pod, o.container)
	if err != nil {
		return err
	}
	query := url.Values{"output": {"1"}, "command": command}
	if o.stdin {
		query.Set("input", "1")
	}
	if o.tty {
		query.Set("tty", "1")
	} else {
		query.Set("error", "1")
	}
	transport, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: unixTransport(o.socket)})
	if err != nil {
		return err
	}
	target := agentURL(query, verb, pod.Namespace, pod.Name, container)
	executor, err := remotecommand.NewSPDYExecutorForTransports(transport, transport, http.MethodPost, target)
	if err != nil {
		return err
	}
	opts := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: o.tty}
	if !o.tty {
		opts.Stderr = os.Stderr
	}
	if o.stdin {
		opts.Stdin = os.Stdin
	}
	return o.withTerminal(ctx, &opts, func() error {
		return cl.explain(executor.StreamWithContext(ctx, opts))
	})
}

// withTerminal runs f with the terminal in raw mode and its size passed on, when
// a terminal was asked for and stdin is one.
func (o *streamFlags) withTerminal(ctx context.Context, opts *remotecommand.StreamOptions, f func() error) error {
	fd := int(os.Stdin.Fd())
	if !o.tty || !o.stdin || !term.IsTerminal(fd) {
		if o.tty && o.stdin {
			fmt.Fprintln(os.Stderr, "Unable to use a TTY - input is not a terminal")
		}
		return f()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sizes := &sizeQueue{ctx: ctx, fd: fd, changed: make(chan os.Signal, 1)}
	sizes.changed <- unix.SIGWINCH // the first size is sent at once
	signal.Notify(sizes.changed, unix.SIGWINCH)
	defer signal.Stop(sizes.changed)
	opts.TerminalSizeQueue = sizes

	old, err := term.MakeRaw(fd)
	if err != nil {
		return fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	err = f()
	return errors.Join(err, term.Restore(fd, old))
}

// sizeQueue gives the terminal's size each time it changes.
type sizeQueue struct {
	ctx     context.Context //nolint:containedctx // the library's interface has no context to end Next
	fd      int
	changed chan os.Signal
}

// Next implements remotecommand.TerminalSizeQueue.
func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	select {
	case <-q.ctx.Done():
		return nil
	case <-q.changed:
	}
	width, height, err := term.GetSize(q.fd)
	if err != nil {
		return nil
	}
	return &remotecommand.TerminalSize{Width: uint16(width), Height: uint16(height)}
}
