package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// cgroupsView is the hierarchy with the names of what lies in it.
type cgroupsView struct {
	Root qos.Group `json:"root"`
	// Names maps a cgroup's path to namespace/pod or to a container's name.
	Names map[string]string `json:"names"`
}

// cgroups reads the hierarchy and names what is known of it.
func (a *agent) cgroups(ctx context.Context) (*cgroupsView, error) {
	root, err := a.tree.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v := &cgroupsView{Root: root, Names: map[string]string{}}
	for _, p := range a.board.List() {
		if cg, _, err := a.tree.Plan(&p); err == nil {
			v.Names[cg.Path] = p.Namespace + "/" + p.Name
		}
		observed, _ := a.runtime.Pod(p.UID)
		for _, c := range observed.Containers {
			v.Names[cri.CgroupDir(c.CgroupPath)] = c.Name
		}
	}
	return v, nil
}

func newCgroupsCommand(f *clientFlags) *cobra.Command {
	var output string
	var watch bool
	var processes bool
	c := &cobra.Command{
		Use:   "cgroups",
		Short: "Show the QoS hierarchy: what everything may use, uses, and waits for",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for {
				var v cgroupsView
				if err := newClient(f.socket).get(c.Context(), &v, "nodeagent/v1/cgroups"); err != nil {
					return err
				}
				if output != "" {
					return printObject(c.OutOrStdout(), output, v)
				}
				if err := printCgroups(c.OutOrStdout(), &v, processes); err != nil || !watch {
					return err
				}
				select {
				case <-c.Context().Done():
					return nil
				case <-time.After(2 * time.Second):
					fmt.Fprintln(c.OutOrStdout())
				}
			}
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, yaml or jsonpath=TEMPLATE")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every two seconds")
	c.Flags().BoolVarP(&processes, "processes", "p", false, "list the processes of each cgroup")
	return c
}

func printCgroups(out io.Writer, v *cgroupsView, processes bool) error {
	t := &table{header: []string{"CGROUP", "CPU", "MEMORY", "PIDS", "CPU TIME", "USES", "THROTTLED", "OOM KILLS", "PRESSURE"}}
	var add func(g *qos.Group, prefix, branch string)
	add = func(g *qos.Group, prefix, branch string) {
		name := path.Base(g.Path)
		if known := v.Names[g.Path]; known != "" {
			name = known
		}
		u := g.Usage
		t.add([]string{
			prefix + branch + name, cpuSetting(g.Settings), memorySetting(g.Settings), pidsSetting(g),
			time.Duration(u.CPUNanoseconds).Round(time.Millisecond).String(), bytesText(u.WorkingSetBytes), throttled(u), fmt.Sprint(u.OOMKills), pressureText(u.Pressure),
		})
		switch branch {
		case "├── ":
			prefix += "│   "
		case "└── ":
			prefix += "    "
		}
		if processes && len(g.Processes) > 0 {
			t.add([]string{prefix + "  pid " + strings.Trim(fmt.Sprint(g.Processes), "[]")})
		}
		for i := range g.Children {
			branch := "├── "
			if i == len(g.Children)-1 {
				branch = "└── "
			}
			add(&g.Children[i], prefix, branch)
		}
	}
	add(&v.Root, "", "")
	return t.print(out, true)
}

// cpuSetting is weight and quota in one column.
func cpuSetting(s map[string]string) string {
	if w := s["cpu.weight"]; w != "" {
		quota, period, _ := strings.Cut(s["cpu.max"], " ")
		if quota == "max" || quota == "" {
			return "weight " + w
		}
		return fmt.Sprintf("weight %s, max %s", w, cores(quota, period))
	}
	if q := s["cpu.cfs_quota_us"]; q != "" && q != "-1" {
		return fmt.Sprintf("shares %s, max %s", s["cpu.shares"], cores(q, s["cpu.cfs_period_us"]))
	}
	return "shares " + s["cpu.shares"]
}

// cores writes a quota in CPUs, as Kubernetes does.
func cores(quota, period string) string {
	var q, p int64
	if _, err := fmt.Sscan(quota, &q); err != nil {
		return quota
	}
	if _, err := fmt.Sscan(period, &p); err != nil || p == 0 {
		return quota
	}
	return resource.NewMilliQuantity(q*1000/p, resource.DecimalSI).String()
}

func memorySetting(s map[string]string) string {
	limit := cmp.Or(s["memory.max"], s["memory.limit_in_bytes"])
	var n uint64
	if _, err := fmt.Sscan(limit, &n); err != nil || n > 1<<62 {
		limit = "no limit"
	} else {
		limit = "max " + bytesText(n)
	}
	for _, f := range []string{"min", "low", "high"} {
		if v := s["memory."+f]; v != "" && v != "0" && v != "max" {
			limit += ", " + f + " " + v
		}
	}
	return limit
}

func pidsSetting(g *qos.Group) string {
	return fmt.Sprintf("%d of %s", g.Usage.PIDs, cmp.Or(g.Settings["pids.max"], "max"))
}

func throttled(u qos.Usage) string {
	if u.Periods == 0 {
		return "-"
	}
	return fmt.Sprintf("%d of %d periods, %s", u.ThrottledPeriods, u.Periods, time.Duration(u.ThrottledNanoseconds).Round(time.Millisecond))
}

func pressureText(p map[string]float64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(p)) {
		parts = append(parts, fmt.Sprintf("%s %.0f%%", k, p[k]))
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}

func bytesText(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%dGi", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%dMi", n>>20)
	default:
		return fmt.Sprintf("%dKi", n>>10)
	}
}

func kernelVersion() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
