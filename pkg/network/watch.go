package network

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle joins the several events of one file being written.
	settle = 100 * time.Millisecond
	// retry is for a network that is configured but says "not yet"; it is not
	// used once the network is ready.
	retry = 5 * time.Second
)

// Run follows the configuration directory until ctx ends. Pods which are
// attached stay as they are; only later ones use a new configuration.
func (c *CNI) Run(ctx context.Context) error {
	if err := ensureDir(c.cfg.ConfDir); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s (is fs.inotify.max_user_instances too low?): %w", c.cfg.ConfDir, err)
	}
	defer watcher.Close()
	if err := watcher.Add(c.cfg.ConfDir); err != nil {
		return fmt.Errorf("watch %s: %w", c.cfg.ConfDir, err)
	}
	// The directory may have changed between New and the watch.
	reload := time.NewTimer(0)
	defer reload.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if event.Name == c.cfg.ConfDir && event.Has(fsnotify.Remove|fsnotify.Rename) {
				if err := c.rewatch(watcher); err != nil {
					return err
				}
			}
			if !event.Has(fsnotify.Chmod) || event.Op != fsnotify.Chmod {
				reload.Reset(settle)
			}
		case err := <-watcher.Errors:
			// Lost events: the directory itself is the truth.
			c.cfg.Log.Warn("watching CNI configuration", "err", err)
			reload.Reset(settle)
		case <-reload.C:
			c.load(ctx)
			if c.Ready() != nil {
				reload.Reset(retry)
			}
		}
	}
}

// rewatch follows a directory that was removed, as some installers do, to the
// one that takes its place.
func (c *CNI) rewatch(watcher *fsnotify.Watcher) error {
	if err := ensureDir(c.cfg.ConfDir); err != nil {
		return err
	}
	if err := watcher.Add(c.cfg.ConfDir); err != nil {
		return fmt.Errorf("watch %s: %w", c.cfg.ConfDir, err)
	}
	return nil
}
