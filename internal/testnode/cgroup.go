package testnode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// makeCgroupRoot makes a cgroup of the node's own in every v1 controller, or in
// the unified hierarchy.
func (n *Node) makeCgroupRoot() error {
	dirs, err := n.cgroupDirs()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 leaves them empty, and the cgroup unusable
			parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), parent, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// cgroupDirs are the directories of the cgroup root, one for each v1 controller or
// one on v2.
func (n *Node) cgroupDirs() ([]string, error) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{"/sys/fs/cgroup" + n.cgroup}, nil
	}
	mounts, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, p := range mounts {
		dirs = append(dirs, filepath.Dir(p)+n.cgroup)
	}
	return dirs, nil
}

func (n *Node) removeCgroupRoot() error {
	if n.cgroup == "/" {
		return nil
	}
	dirs, err := n.cgroupDirs()
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the node's cgroup root: %w", err))
		}
	}
	return errors.Join(errs...)
}

// leftovers are mounts, cgroups and processes of this node.
func (n *Node) leftovers() ([]string, error) {
	mounts, err := n.mounts()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, m := range mounts {
		left = append(left, "mount "+m)
	}
	for pid, cmdline := range n.processes(n.Dir + "/") {
		left = append(left, fmt.Sprintf("process %d: %s", pid, strings.ReplaceAll(cmdline, "\x00", " ")))
	}
	dirs, err := n.cgroupDirs()
	if err != nil {
		return nil, err
	}
	for _, root := range dirs {
		for _, level := range []string{"kubepods", "kubepods.slice"} {
			if _, err := os.Stat(filepath.Join(root, level)); err == nil {
				left = append(left, "cgroup "+filepath.Join(root, level))
			}
		}
	}
	return left, nil
}

// processes are those, besides the caller, whose command line contains a text.
func (n *Node) processes(text string) map[int]string {
	found := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if cmdline, err := os.ReadFile(f); err == nil && strings.Contains(string(cmdline), text) {
			found[pid] = string(cmdline)
		}
	}
	return found
}

// mounts are the places below the node's directory where something is mounted,
// the newest last.
func (n *Node) mounts() ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var places []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], n.Dir+"/") {
			places = append(places, fields[4])
		}
	}
	return places, nil
}
