package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Types are the namespace types that are reported, named as in /proc/<pid>/ns.
func Types() []string {
	return []string{"net", "ipc", "uts", "pid", "mnt", "cgroup", "user", "time"}
}

// Process is one process and what it lives in.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	// Cgroup is the process's path below the cgroup mount (on v1: of the memory
	// controller, or of the first one listed).
	Cgroup string `json:"cgroup"`
	// Namespaces maps a type to the namespace's inode number, which is its identity.
	Namespaces  map[string]uint64 `json:"namespaces"`
	OOMScoreAdj int               `json:"oomScoreAdj"`
}

// Group is a named set of processes: a container, or the host.
type Group struct {
	Name      string    `json:"name"`
	Processes []Process `json:"processes"`
}

// Namespace is one namespace and the groups with a process inside.
type Namespace struct {
	Type  string `json:"type"`
	Inode uint64 `json:"inode"`
	// Host says that it is the machine's own namespace.
	Host bool `json:"host,omitempty"`
	// Groups are the names of the groups inside, in the order they were given.
	Groups []string `json:"groups"`
}

// Reader reads processes below a proc mount.
type Reader struct {
	// ProcRoot is where procfs is mounted, normally /proc.
	ProcRoot string
}

// Process describes one process. The error matches fs.ErrNotExist when there is
// no such process.
func (r Reader) Process(pid int) (Process, error) {
	p := Process{PID: pid, Namespaces: map[string]uint64{}}
	dir := filepath.Join(r.ProcRoot, strconv.Itoa(pid))
	if _, err := os.Stat(dir); err != nil {
		return p, fmt.Errorf("inspect process %d: %w", pid, err)
	}
	for _, t := range Types() {
		inode, err := namespaceInode(filepath.Join(dir, "ns", t))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without this type, or a process that just ended
		}
		if err != nil {
			return p, fmt.Errorf("inspect process %d: %w", pid, err)
		}
		p.Namespaces[t] = inode
	}
	cgroups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return p, gone(pid, err)
	}
	p.Cgroup = cgroupPath(string(cgroups))
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return p, gone(pid, err)
	}
	p.Command = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	adj, err := os.ReadFile(filepath.Join(dir, "oom_score_adj"))
	if err != nil {
		return p, gone(pid, err)
	}
	p.OOMScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(adj)))
	return p, err
}

// Group describes the given processes as one group; those that have ended are
// left out.
func (r Reader) Group(name string, pids []int) (Group, error) {
	g := Group{Name: name}
	for _, pid := range pids {
		p, err := r.Process(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return g, err
		}
		g.Processes = append(g.Processes, p)
	}
	return g, nil
}

// Host describes a process that lives in the machine's own namespaces: init, or
// where that may not be looked at this process, which is normally not confined.
func (r Reader) Host() (Process, error) {
	host, err := r.Process(1)
	if errors.Is(err, fs.ErrPermission) {
		return r.Process(os.Getpid())
	}
	return host, err
}

// Share lists every namespace that the groups live in, by type and then by first
// appearance. Host marks those that init of this machine lives in too.
func (r Reader) Share(groups []Group) ([]Namespace, error) {
	host, err := r.Host()
	if err != nil {
		return nil, err
	}
	var out []Namespace
	for _, t := range Types() {
		first := len(out)
		for _, g := range groups {
			for _, p := range g.Processes {
				inode, ok := p.Namespaces[t]
				if !ok {
					continue
				}
				i := slices.IndexFunc(out[first:], func(n Namespace) bool { return n.Inode == inode })
				if i < 0 {
					out = append(out, Namespace{Type: t, Inode: inode, Host: host.Namespaces[t] == inode})
					i = len(out) - 1 - first
				}
				n := &out[first+i]
				if !slices.Contains(n.Groups, g.Name) {
					n.Groups = append(n.Groups, g.Name)
				}
			}
		}
	}
	return out, nil
}

// gone makes the errors of a process that ended while it was read match fs.ErrNotExist.
func gone(pid int, err error) error {
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("inspect process %d: %w", pid, err)
}

// namespaceInode reads the inode out of a link such as "net:[4026531840]".
func namespaceInode(link string) (uint64, error) {
	target, err := os.Readlink(link)
	if err != nil {
		return 0, err
	}
	_, id, ok := strings.Cut(target, ":[")
	if !ok {
		return 0, fmt.Errorf("%s: unexpected target %q", link, target)
	}
	return strconv.ParseUint(strings.TrimSuffix(id, "]"), 10, 64)
}

// cgroupPath picks the telling line of /proc/<pid>/cgroup: the memory
// controller's on v1, the unified one on v2.
func cgroupPath(file string) string {
	var unified, first string
	for line := range strings.Lines(strings.TrimSpace(file)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			return parts[2]
		case parts[1] == "":
			unified = parts[2]
		case first == "":
			first = parts[2]
		}
	}
	if unified == "" || (unified == "/" && first != "") {
		return first
	}
	return unified
}
