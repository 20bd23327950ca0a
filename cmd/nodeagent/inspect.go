package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/inspect"
)

// inspectView is what `nodeagent inspect POD` shows: from the pod to its cgroup
// to its processes, and from each namespace to who is inside.
type inspectView struct {
	Namespace  string              `json:"namespace"`
	Pod        string              `json:"pod"`
	UID        string              `json:"uid"`
	QOSClass   string              `json:"qosClass"`
	Cgroup     string              `json:"cgroup"`
	Network    string              `json:"network"`
	Containers []inspectContainer  `json:"containers"`
	Namespaces []inspect.Namespace `json:"namespaces"`
	// Cgroups are those that the pod lies in and that lie in it, outermost first.
	Cgroups []cgroupLevel `json:"cgroups"`
}

type inspectContainer struct {
	inspect.Group
	ID     string `json:"id"`
	Cgroup string `json:"cgroup"`
}

func newInspectCommand(f *clientFlags) *cobra.Command {
	var output string
	var pid int
	c := &cobra.Command{
		Use:   "inspect [POD | --pid PID]",
		Short: "Show which cgroup and namespaces a pod's processes live in",
		Long: "Shows, for each container of a pod, its cgroup and its processes, the limits of every\n" +
			"cgroup on the way and who is throttled there, and for each namespace who is inside.\n" +
			"With --pid it starts from a process of this machine instead.",
		Example: "  nodeagent inspect web\n  nodeagent inspect --pid 4711",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			cl := newClient(f.socket)
			byPID := c.Flags().Changed("pid")
			if byPID == (len(args) == 1) {
				return fmt.Errorf("name either a pod or a process (--pid)")
			}
			if byPID {
				v, err := processOf(c.Context(), cl, pid)
				if err != nil {
					return err
				}
				if output != "" {
					return printObject(c.OutOrStdout(), output, v)
				}
				return printProcess(c.OutOrStdout(), v)
			}
			pod, err := cl.pod(c.Context(), f.namespace, args[0])
			if err != nil {
				return err
			}
			var view inspectView
			if err := cl.get(c.Context(), &view, "nodeagent/v1/inspect", pod.Namespace, pod.Name); err != nil {
				return err
			}
			if output != "" {
				return printObject(c.OutOrStdout(), output, view)
			}
			return printInspect(c.OutOrStdout(), &view)
		},
		ValidArgsFunction: completePods(f),
	}
	f.podFlags(c)
	c.Flags().StringVarP(&output, "output", "o", "", "json, yaml or jsonpath=TEMPLATE")
	c.Flags().IntVar(&pid, "pid", 0, "start from this process of the machine")
	return c
}

func printInspect(out io.Writer, v *inspectView) error {
	p := &printer{out: out}
	p.field("Pod", v.Namespace+"/"+v.Pod)
	p.field("UID", v.UID)
	p.field("QoS Class", v.QOSClass)
	p.field("Cgroup", v.Cgroup)
	p.field("Network", v.Network)
	for _, c := range v.Containers {
		p.line("")
		p.line("Container %s (%s)", c.Name, c.ID)
		p.nested(func() {
			p.line("cgroup %s", c.Cgroup)
			if len(c.Processes) == 0 {
				p.line("no process")
			}
			for _, proc := range c.Processes {
				p.line("%7d  oom_score_adj %-5d %s", proc.PID, proc.OOMScoreAdj, proc.Command)
			}
		})
	}
	p.line("")
	if p.err == nil {
		p.err = printLevels(out, v.Cgroups)
	}
	p.line("")
	if p.err != nil {
		return p.err
	}
	t := &table{header: []string{"NAMESPACE", "INODE", "OF", "WHO IS INSIDE"}}
	for _, n := range v.Namespaces {
		t.add([]string{n.Type, fmt.Sprint(n.Inode), namespaceOwner(n, len(v.Containers)), strings.Join(n.Groups, ", ")})
	}
	return t.print(out, true)
}

// namespaceOwner says how far a namespace is shared.
func namespaceOwner(n inspect.Namespace, containers int) string {
	switch {
	case n.Host:
		return "host"
	case len(n.Groups) == containers && containers > 1:
		return "pod"
	case len(n.Groups) > 1:
		return "shared"
	default:
		return "container"
	}
}

// ownerOf reads pod UID and container ID out of a cgroup path of either driver.
func ownerOf(cgroup string) (uid, container string) {
	parts := strings.Split(strings.Trim(cgroup, "/"), "/")
	i := slices.IndexFunc(parts, func(s string) bool { return podOf(s) != "" })
	if i < 0 {
		return "", ""
	}
	uid = podOf(parts[i])
	if i+1 < len(parts) {
		container = strings.TrimSuffix(strings.TrimPrefix(parts[i+1], "cri-containerd-"), ".scope")
	}
	return uid, container
}

// podOf is the pod UID in one path component, or empty.
func podOf(component string) string {
	slice, isSlice := strings.CutSuffix(component, ".slice")
	if isSlice {
		slice = slice[strings.LastIndex(slice, "-")+1:]
	}
	uid, isPod := strings.CutPrefix(slice, "pod")
	if !isPod {
		return ""
	}
	if isSlice {
		uid = strings.ReplaceAll(uid, "_", "-")
	}
	return uid
}
