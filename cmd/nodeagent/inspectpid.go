package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/inspect"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// cgroupLevel is one cgroup on the way from kubepods to a process.
type cgroupLevel struct {
	Path string `json:"path"`
	// Name is namespace/pod or a container's name, where there is one.
	Name     string            `json:"name,omitempty"`
	Settings map[string]string `json:"settings"`
	Usage    qos.Usage         `json:"usage"`
}

// around lists the cgroups that hold the one named and those that it holds, outermost
// first. One outside the hierarchy has none.
func (v *cgroupsView) around(of string) []cgroupLevel {
	var out []cgroupLevel
	var walk func(g *qos.Group)
	walk = func(g *qos.Group) {
		if g.Path != of && !strings.HasPrefix(of, g.Path+"/") && !strings.HasPrefix(g.Path, of+"/") {
			return
		}
		out = append(out, cgroupLevel{Path: g.Path, Name: v.Names[g.Path], Settings: g.Settings, Usage: g.Usage})
		for i := range g.Children {
			walk(&g.Children[i])
		}
	}
	walk(&v.Root)
	if !slices.ContainsFunc(out, func(l cgroupLevel) bool { return l.Path == of }) {
		return nil
	}
	return out
}

func printLevels(out io.Writer, levels []cgroupLevel) error {
	t := &table{header: []string{"LIMITS OF", "CPU", "MEMORY", "PIDS", "THROTTLED", "PRESSURE", "CGROUP"}}
	for _, l := range levels {
		g := qos.Group{Settings: l.Settings, Usage: l.Usage}
		t.add([]string{
			cmp.Or(l.Name, path.Base(l.Path)), cpuSetting(l.Settings), memorySetting(l.Settings), pidsSetting(&g), throttled(l.Usage), pressureText(l.Usage.Pressure), l.Path,
		})
	}
	return t.print(out, true)
}

// processView is what `nodeagent inspect --pid` shows: from a process to its
// cgroup, its pod, its limits and whom it shares its namespaces with.
type processView struct {
	inspect.Process
	PodUID      string            `json:"podUID,omitempty"`
	ContainerID string            `json:"containerID,omitempty"`
	Cgroups     []cgroupLevel     `json:"cgroups,omitempty"`
	Sharing     []inspect.Sharing `json:"sharing"`
}

// processOf reads /proc itself; only the limits come from the agent, and a
// process outside any pod needs none.
func processOf(ctx context.Context, cl *client, pid int) (*processView, error) {
	r := inspect.Reader{ProcRoot: "/proc"}
	proc, err := r.Process(pid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no process %d on this machine", pid)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("may not look at process %d: run this as root, with CAP_SYS_PTRACE: %w", pid, err)
	case err != nil:
		return nil, err
	}
	v := &processView{Process: proc}
	if v.Sharing, err = r.SharedWith(proc); err != nil {
		return nil, err
	}
	if v.PodUID, v.ContainerID = ownerOf(proc.Cgroup); v.PodUID == "" {
		return v, nil
	}
	var tree cgroupsView
	if err := cl.get(ctx, &tree, "nodeagent/v1/cgroups"); err != nil {
		return nil, fmt.Errorf("limits of process %d: %w", pid, err)
	}
	v.Cgroups = tree.around(proc.Cgroup)
	return v, nil
}

func printProcess(out io.Writer, v *processView) error {
	p := &printer{out: out}
	p.field("PID", fmt.Sprint(v.PID))
	p.field("Command", orNone(v.Command))
	p.field("OOM score adj", fmt.Sprint(v.OOMScoreAdj))
	p.field("Cgroup", v.Cgroup)
	if v.PodUID == "" {
		p.field("Pod", "<none>")
	} else {
		var names []string
		for _, l := range v.Cgroups {
			if l.Name != "" {
				names = append(names, l.Name)
			}
		}
		p.field("Pod", orNone(strings.Join(names, ", container ")))
		p.field("Pod UID", v.PodUID)
		p.field("Container ID", orNone(v.ContainerID))
		p.line("")
		if p.err == nil {
			p.err = printLevels(out, v.Cgroups)
		}
	}
	p.line("")
	if p.err != nil {
		return p.err
	}
	t := &table{header: []string{"NAMESPACE", "INODE", "OF", "SHARED WITH PIDS"}}
	for _, s := range v.Sharing {
		of, with := "its own", "-"
		switch {
		case s.Host:
			of = "host"
		case len(s.Others) > 0:
			of, with = "shared", strings.Trim(fmt.Sprint(s.Others), "[]")
		}
		t.add([]string{s.Type, fmt.Sprint(s.Inode), of, with})
	}
	return t.print(out, true)
}
