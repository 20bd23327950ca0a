package qos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is the cgroup file system as it is mounted.
type hierarchy struct {
	root    string // where it is mounted: of v2, or of all v1 controllers
	version int
	// mounts maps a v1 controller to its directory. On v2 the key is empty.
	mounts map[string]string
	// controllers are those that v2 offers at its root.
	controllers []string
}

// needed are the controllers without which nothing can be enforced.
func needed() []string { return []string{"cpu", "cpuset", "memory", "pids"} }

// openHierarchy finds out how cgroups are mounted at root.
func openHierarchy(root string) (*hierarchy, error) {
	h := &hierarchy{root: root, mounts: map[string]string{}}
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err == nil {
		h.version, h.mounts[""] = 2, root
		h.controllers = strings.Fields(string(data))
		for _, c := range needed() {
			if !slices.Contains(h.controllers, c) {
				return nil, fmt.Errorf("cgroup v2 at %s lacks the %s controller: enable it on the kernel command line (cgroup_enable=%s) or delegate it to this machine", root, c, c)
			}
		}
		return h, nil
	}
	h.version = 1
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("no cgroup file system at %s: mount it with `mount -t cgroup2 none %s`: %w", root, root, err)
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		// Not every directory is a mount. The unified one of a hybrid machine has no
		// controllers, but runtimes put their processes there too.
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		for c := range strings.SplitSeq(e.Name(), ",") { // cpu,cpuacct is one mount
			h.mounts[c] = dir
		}
	}
	for _, c := range append(needed(), "cpuacct") {
		if h.mounts[c] == "" {
			return nil, fmt.Errorf("cgroup v1 at %s lacks the %s controller: mount it with `mount -t cgroup -o %s none %s/%s`, or boot with cgroup v2", root, c, c, root, c)
		}
	}
	return h, nil
}

// has says whether a controller can be used.
func (h *hierarchy) has(controller string) bool {
	return h.mounts[controller] != "" || slices.Contains(h.controllers, controller)
}

// dirs are the directories of a cgroup: one on v2, one for each mount on v1.
func (h *hierarchy) dirs(cgroup string) []string {
	var out []string
	for _, mount := range h.mounts {
		if dir := filepath.Join(mount, cgroup); !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	slices.Sort(out)
	return out
}

// exists says whether a cgroup is there under every controller.
func (h *hierarchy) exists(cgroup string) bool {
	for _, dir := range h.dirs(cgroup) {
		if _, err := os.Stat(dir); err != nil {
			return false
		}
	}
	if h.version == 1 {
		return true
	}
	data, err := os.ReadFile(filepath.Join(h.root, cgroup, "cgroup.controllers"))
	have := strings.Fields(string(data))
	return err == nil && !slices.ContainsFunc(needed(), func(c string) bool { return !slices.Contains(have, c) })
}

// anywhere says whether a cgroup is there under some controller.
func (h *hierarchy) anywhere(cgroup string) bool {
	return slices.ContainsFunc(h.dirs(cgroup), func(d string) bool {
		_, err := os.Stat(d)
		return err == nil
	})
}

// create makes a cgroup and what lies between it and the root, ready for limits.
func (h *hierarchy) create(cgroup string) error {
	for _, dir := range h.dirs(cgroup) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return explain("create cgroup", err)
		}
	}
	if h.version == 2 {
		return h.enable(cgroup)
	}
	return h.seedCPUSet(cgroup)
}

// enable offers every controller to a cgroup, from the root down.
func (h *hierarchy) enable(cgroup string) error {
	var all []string
	for _, c := range h.controllers {
		if slices.Contains(append(needed(), "hugetlb", "io"), c) {
			all = append(all, "+"+c)
		}
	}
	dir := h.root
	for part := range strings.SplitSeq(strings.Trim(cgroup, "/"), "/") {
		file := filepath.Join(dir, "cgroup.subtree_control")
		if os.WriteFile(file, []byte(strings.Join(all, " ")), 0) != nil { // all or nothing: find out which
			for _, c := range all {
				if err := os.WriteFile(file, []byte(c), 0); err != nil && slices.Contains(needed(), c[1:]) {
					return explain(fmt.Sprintf("enable the %s controller below %s", c[1:], dir), err)
				}
			}
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

// seedCPUSet fills in what v1 leaves empty in a new cgroup, which could not hold
// a process otherwise.
func (h *hierarchy) seedCPUSet(cgroup string) error {
	dir := h.mounts["cpuset"]
	for part := range strings.SplitSeq(strings.Trim(cgroup, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			have, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return explain("seed cpuset", err)
			}
			if strings.TrimSpace(string(have)) != "" {
				continue
			}
			value, err := os.ReadFile(filepath.Join(parent, file))
			if err != nil {
				return explain("seed cpuset", err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
				return explain("seed cpuset", err)
			}
		}
	}
	return nil
}

// write sets files of a cgroup.
func (h *hierarchy) write(cgroup string, settings []Setting) error {
	for _, s := range settings {
		mount := h.mounts[s.Controller]
		if h.version == 2 {
			mount = h.root
		}
		if mount == "" {
			if s.optional {
				continue
			}
			return fmt.Errorf("set %s of cgroup %s: the %s controller is not mounted", s.File, cgroup, s.Controller)
		}
		f, err := os.OpenFile(filepath.Join(mount, cgroup, s.File), os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrNotExist) && s.optional {
			continue
		}
		if err == nil {
			_, err = f.WriteString(s.Value)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return explain(fmt.Sprintf("set %s of cgroup %s to %s", s.File, cgroup, s.Value), err)
		}
	}
	return nil
}

// explain adds what to do about errors that a user can mend.
func explain(what string, err error) error {
	var at *fs.PathError
	switch {
	case errors.Is(err, unix.EROFS) && errors.As(err, &at):
		return fmt.Errorf("%s: the cgroup file system is read-only there; find its mount with `findmnt -T %s` and remount it with `mount -o remount,rw`: %w", what, filepath.Dir(at.Path), err)
	case errors.Is(err, unix.EBUSY) && errors.As(err, &at) && filepath.Base(at.Path) == "cgroup.subtree_control":
		return fmt.Errorf("%s: that cgroup has processes of its own, which cgroup v2 does not allow; move them into a cgroup below it, or set cgroupRoot: %w", what, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}
