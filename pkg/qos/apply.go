package qos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
)

// apply makes a cgroup with its settings. One that is there is set again when
// again says so.
func (t *Tree) apply(ctx context.Context, n name, res *Resources, again bool) error {
	settings := res.settings(t.version, t.units != nil, t.pageSizes)
	dir, err := t.path(n)
	if err != nil {
		return err
	}
	if t.units == nil {
		if t.fs.exists(dir) && !again {
			return nil
		}
		if err := t.fs.create(dir); err != nil {
			return err
		}
		return t.fs.write(dir, files(settings, false))
	}
	existed, err := t.units.start(ctx, n.slice(), t.version, settings)
	if err != nil {
		return err
	}
	if existed && again {
		if err := t.units.set(ctx, n.slice(), settings); err != nil {
			return err
		}
	}
	// systemd makes a slice only under the controllers it manages itself.
	if err := t.fs.create(dir); err != nil {
		return err
	}
	return t.writeFiles(dir, settings)
}

// set changes a cgroup that is there.
func (t *Tree) set(ctx context.Context, n name, res *Resources) error {
	settings := res.settings(t.version, t.units != nil, t.pageSizes)
	dir, err := t.path(n)
	if err != nil {
		return err
	}
	if t.units != nil {
		if err := t.units.set(ctx, n.slice(), settings); err != nil {
			return err
		}
	}
	return t.writeFiles(dir, settings)
}

// writeFiles writes what must be written as files, and with systemd remembers it:
// a reload may undo what systemd does not know.
func (t *Tree) writeFiles(dir string, settings []Setting) error {
	list := files(settings, t.units != nil)
	if t.units != nil {
		t.mu.Lock()
		if t.unknown[dir] == nil {
			t.unknown[dir] = map[string]Setting{}
		}
		for _, s := range list {
			t.unknown[dir][s.File] = s
		}
		t.mu.Unlock()
	}
	return t.fs.write(dir, list)
}

// Run keeps what systemd has no property for over its reloads, until ctx ends.
// With the cgroupfs driver there is nothing to do.
func (t *Tree) Run(ctx context.Context) error {
	if t.units == nil {
		return nil
	}
	t.units.watch(ctx, func() {
		if err := t.reassert(); err != nil {
			t.cfg.Log.Error("cgroups not restored after systemd reloaded", "err", err)
		}
	})
	return nil
}

// reassert writes the files of all cgroups again that are there. It makes none:
// a pod that is being removed shall not come back.
func (t *Tree) reassert() error {
	t.mu.Lock()
	todo := make(map[string][]Setting, len(t.unknown))
	for dir, byFile := range t.unknown {
		todo[dir] = slices.Collect(maps.Values(byFile))
	}
	t.mu.Unlock()
	var errs []error
	for dir, list := range todo {
		var err error
		if t.version == 2 {
			err = t.fs.enable(dir)
		}
		if err == nil {
			err = t.fs.write(dir, list)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}
