package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/network"
)

const downTimeout = 2 * time.Minute

func newDownCommand() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "down",
		Short: "End all pods of this agent and remove every trace of them",
		Long: "Ends all pods, removes their cgroups, network, images and files, and ends the\n" +
			"embedded containerd. The agent must have been stopped. An external containerd,\n" +
			"and manifests, are left alone.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), downTimeout)
			defer cancel()
			return down(ctx, f)
		},
	}
	f.add(c)
	return c
}

// down takes apart what run has built, newest first.
func down(ctx context.Context, f *runFlags) error {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	unlock, err := lockState(ctx, cfg.Agent.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	a := &agent{cfg: cfg, log: log}
	if a.tree, err = newTree(ctx, cfg, log); err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	defer a.close()
	if err := a.connect(ctx); err != nil {
		return err
	}
	if err := a.removePods(ctx); err != nil {
		return err
	}
	if err := cri.StopHolder(cfg.Agent.StateDir); err != nil {
		return err
	}
	if err := a.tree.RemoveRoot(ctx); err != nil {
		return err
	}
	if a.embedded == nil {
		return os.RemoveAll(cfg.Agent.StateDir)
	}
	if err := a.embedded.Stop(ctx); err != nil {
		return err
	}
	if err := network.RemoveBridge(ctx, bridge(cfg)); err != nil {
		return err
	}
	// Directories that others may use too go only when they are empty.
	defer func() {
		for _, dir := range []string{cfg.Agent.ContainerLogDir, cfg.Agent.LogDir, cfg.Agent.RootDir, cfg.Agent.CNIConfDir} {
			_ = os.Remove(dir)
		}
	}()
	return errors.Join(ignoreNotExist(os.Remove(bridgeFile(cfg))), ignoreNotExist(os.Remove(logFile(cfg))), os.RemoveAll(cfg.Agent.RuntimeDir), os.RemoveAll(cfg.Agent.StateDir), os.RemoveAll(filepath.Join(cfg.Agent.RootDir, "pods")),
		os.RemoveAll(filepath.Join(cfg.Agent.RootDir, keptManifests)))
}

// removePods ends all pods and what they left.
func (a *agent) removePods(ctx context.Context) error {
	life, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.runtime.Run(life) }()
	var errs []error
	volumes := a.volumes()
	for _, p := range a.runtime.Pods() {
		if err := a.runtime.RemoveSandbox(ctx, p.UID); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, volumes.Teardown(ctx, p.UID), a.removePodLogs(&p))
	}
	left, err := os.ReadDir(filepath.Join(a.cfg.Agent.RootDir, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range left { // volumes of pods that never got a sandbox
		errs = append(errs, volumes.Teardown(ctx, types.UID(e.Name())))
	}
	end()
	return errors.Join(append(errs, <-done)...)
}

func (a *agent) removePodLogs(p *cri.Pod) error {
	return os.RemoveAll(filepath.Join(a.cfg.Agent.LogDir, fmt.Sprintf("%s_%s_%s", p.Namespace, p.Name, p.UID)))
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
