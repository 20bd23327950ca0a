package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"k8s.io/klog/v2"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/server"
)

var errNotRoot = errors.New("cgroups, namespaces and mounts need root: run this with sudo")

func newRunCommand() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent in the foreground",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return errNotRoot
			}
			return run(c.Context(), cfg, f, c.OutOrStdout())
		},
	}
	f.add(c)
	c.Flags().BoolVar(&f.show, "show", false, "show a live table of the pods")
	return c
}

// run is the agent: it builds everything bottom-up and runs it until ctx ends.
func run(ctx context.Context, cfg config.Config, f *runFlags, out io.Writer) error {
	log, err := newLogger(cfg, f)
	if err != nil {
		return err
	}
	klog.SetSlogLogger(log) // the Kubernetes libraries' way to log
	cri.BridgeLog(log)
	for _, field := range cfg.Unsupported {
		log.Warn("configuration field has no effect yet", "field", field)
	}
	unlock, err := lockState(ctx, cfg.Agent.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := joinAsServiceAccount(&cfg, serviceAccountDir); err != nil {
		return err
	}
	a, err := build(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer a.close()
	listener, err := listen(cfg.Agent.StateDir)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range a.parts() {
		g.Go(func() error { return part(ctx) })
	}
	g.Go(func() error { return (&server.Server{Funcs: a.funcs(), Log: log}).Run(ctx, listener) })
	if f.show {
		table := &liveTable{board: a.board, cgroupOf: a.cgroupOf, out: out}
		if fd := int(os.Stdout.Fd()); term.IsTerminal(fd) {
			table.size = func() (int, int, error) { return term.GetSize(fd) }
		}
		fmt.Fprintf(out, "Ctrl-C stops the agent; the pods go on. Its messages: %s\n\n", logFile(cfg))
		g.Go(func() error { return table.Run(ctx) })
	}
	log.Info("agent is running", "node", cfg.Agent.NodeName, "manifests", cfg.Kubelet.StaticPodPath)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("tell systemd that the agent is ready", "err", err)
	}
	err = g.Wait()
	if f.show {
		fmt.Fprintln(out, "\nThe agent has stopped. The pods go on: `make down` (or `nodeagent down`) ends them.")
	}
	return err
}

// lockPatience is how long the lock of an agent that has ended may still be held:
// a child that it was about to start has a copy of the file until its exec, and a
// busy machine may be slow to get there after the agent was killed.
const lockPatience = 10 * time.Second

// lockState makes sure that no other agent works on the same state.
func lockState(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // the lock goes with the file
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			err = fmt.Errorf("another agent runs with state directory %s: stop it first, or use another --state-dir", dir)
			return nil, errors.Join(err, f.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listen opens the socket for local clients; the lock makes removing an old one safe.
func listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, "agent.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177) // the socket must never be open to others, not even for a moment
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen for local clients: %w", err)
	}
	return l, nil
}

// logFile is where messages go while the live table has the terminal.
func logFile(cfg config.Config) string { return filepath.Join(cfg.Agent.RootDir, "agent.log") }

// newLogger writes text to a terminal and JSON elsewhere. With the live table
// messages go to a file beside it.
func newLogger(cfg config.Config, f *runFlags) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if f.verbosity >= 4 {
		opts.Level = slog.LevelDebug
	}
	if f.show {
		if err := os.MkdirAll(cfg.Agent.RootDir, 0o711); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(logFile(cfg), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, err
		}
		return slog.New(slog.NewTextHandler(file, opts)), nil
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
}
