package qos

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Shelter moves a process out of the cgroup that it was started in, to one beside
// kubepods where it outlives its parent: an agent that runs in a container ends
// with everything in the container's cgroup. It is for a Tree with a root of its
// own. The cgroup goes with the root.
func (t *Tree) Shelter(ctx context.Context, what string, pid int) error {
	if !t.cfg.OwnRoot || len(t.root) == 0 {
		return fmt.Errorf("shelter %s: this agent has no cgroup of its own: set cgroupRoot", what)
	}
	dir, err := t.path(t.root.child(what))
	if err != nil {
		return err
	}
	if t.units != nil {
		if dir, err = t.scope(ctx, what, pid); err != nil {
			return err
		}
		if t.version == 2 {
			return nil
		}
		// On v1 systemd moves it under the controllers that it manages itself.
	}
	if err := t.fs.create(dir); err != nil {
		return err
	}
	for _, d := range t.fs.dirs(dir) {
		if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("shelter %s in %s: %w", what, d, err)
		}
	}
	return nil
}

// scope makes a scope of a process, and returns its cgroup. The name has the
// process ID in it: systemd may still remember the scope of one that has ended.
func (t *Tree) scope(ctx context.Context, what string, pid int) (string, error) {
	slice, err := t.path(t.root)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s-%s-%d.scope", t.root[len(t.root)-1], what, pid)
	properties := []dbus.Property{
		dbus.PropDescription("nodeagent: " + what), dbus.PropSlice(t.root.slice()), dbus.PropPids(uint32(pid)),
		{Name: "DefaultDependencies", Value: godbus.MakeVariant(false)},
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}
	err = t.units.call(ctx, func(l *link) error {
		return l.job(ctx, func(done chan<- string) error {
			_, err := l.StartTransientUnitContext(ctx, name, "replace", properties, done)
			return err
		})
	})
	return path.Join(slice, name), wrapUnit("start", name, err)
}
