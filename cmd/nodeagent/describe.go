package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func newDescribeCommand(f *clientFlags) *cobra.Command {
	pod := &cobra.Command{
		Use:     "pod NAME",
		Aliases: []string{"pods", "po"},
		Short:   "Show everything about a pod, with its events",
		Args:    oneArg("one pod"),
		RunE: func(c *cobra.Command, args []string) error {
			cl := newClient(f.socket)
			pod, err := cl.pod(c.Context(), f.namespace, args[0])
			if err != nil {
				return err
			}
			var events corev1.EventList
			if err := cl.get(c.Context(), &events, "nodeagent/v1/events", pod.Namespace, pod.Name); err != nil {
				return err
			}
			p := &printer{out: c.OutOrStdout()}
			describePod(p, pod)
			describeEvents(p, events.Items, time.Now())
			return p.err
		},
		ValidArgsFunction: completePods(f),
	}
	f.podFlags(pod)
	describe := parent("describe", "Show everything about a pod")
	describe.AddCommand(pod)
	return describe
}

// printer writes aligned, indented lines and keeps the first error.
type printer struct {
	out    io.Writer
	indent int
	err    error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, strings.Repeat("  ", p.indent)+format+"\n", args...)
	}
}

func (p *printer) field(name, value string) {
	p.line("%-*s %s", 18-2*p.indent, name+":", value)
}

func (p *printer) nested(f func()) {
	p.indent++
	f()
	p.indent--
}

func describePod(p *printer, pod *corev1.Pod) {
	p.field("Name", pod.Name)
	p.field("Namespace", pod.Namespace)
	p.field("UID", string(pod.UID))
	p.field("Node", orNone(pod.Spec.NodeName))
	if pod.Status.StartTime != nil {
		p.field("Start Time", pod.Status.StartTime.Format(time.RFC1123Z))
	}
	describeMap(p, "Labels", pod.Labels)
	describeMap(p, "Annotations", pod.Annotations)
	p.field("Status", podState(pod))
	if pod.Status.Reason != "" {
		p.field("Reason", pod.Status.Reason)
	}
	if pod.Status.Message != "" {
		p.field("Message", pod.Status.Message)
	}
	p.field("IP", orNone(pod.Status.PodIP))
	p.field("QoS Class", string(pod.Status.QOSClass))
	if len(pod.Spec.InitContainers) > 0 {
		p.line("Init Containers:")
		describeContainers(p, pod.Spec.InitContainers, pod.Status.InitContainerStatuses)
	}
	p.line("Containers:")
	describeContainers(p, pod.Spec.Containers, pod.Status.ContainerStatuses)
	if len(pod.Spec.EphemeralContainers) > 0 {
		var list []corev1.Container
		for i := range pod.Spec.EphemeralContainers {
			list = append(list, corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
		}
		p.line("Ephemeral Containers:")
		describeContainers(p, list, pod.Status.EphemeralContainerStatuses)
	}
	p.line("Conditions:")
	p.nested(func() {
		p.line("%-28s %s", "Type", "Status")
		for _, c := range pod.Status.Conditions {
			p.line("%-28s %-7s %s", c.Type, c.Status, strings.TrimSpace(c.Reason+" "+c.Message))
		}
	})
	p.line("Volumes:")
	p.nested(func() {
		for _, v := range pod.Spec.Volumes {
			p.line("%s (%s)", v.Name, volumeKind(&v))
		}
	})
}

func describeMap(p *printer, name string, m map[string]string) {
	if len(m) == 0 {
		p.field(name, "<none>")
		return
	}
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			name = ""
			p.line("%-18s %s=%s", "", k, m[k])
			continue
		}
		p.field(name, k+"="+m[k])
	}
}

func describeContainers(p *printer, containers []corev1.Container, statuses []corev1.ContainerStatus) {
	byName := map[string]corev1.ContainerStatus{}
	for _, s := range statuses {
		byName[s.Name] = s
	}
	for i := range containers {
		c := &containers[i]
		s := byName[c.Name]
		p.indent = 1
		p.line("%s:", c.Name)
		p.indent = 2
		p.field("Container ID", orNone(s.ContainerID))
		p.field("Image", c.Image)
		p.field("Image ID", orNone(s.ImageID))
		if len(c.Command) > 0 {
			p.field("Command", strings.Join(c.Command, " "))
		}
		if len(c.Args) > 0 {
			p.field("Args", strings.Join(c.Args, " "))
		}
		describeState(p, "State", s.State)
		if s.LastTerminationState.Terminated != nil {
			describeState(p, "Last State", s.LastTerminationState)
		}
		p.field("Ready", fmt.Sprint(s.Ready))
		p.field("Restart Count", fmt.Sprint(s.RestartCount))
		describeResources(p, "Limits", c.Resources.Limits)
		describeResources(p, "Requests", c.Resources.Requests)
		for _, m := range c.VolumeMounts {
			mode := "rw"
			if m.ReadOnly {
				mode = "ro"
			}
			p.field("Mount", fmt.Sprintf("%s from %s (%s)", m.MountPath, m.Name, mode))
		}
	}
	p.indent = 0
}

func describeState(p *printer, name string, s corev1.ContainerState) {
	switch {
	case s.Running != nil:
		p.field(name, "Running since "+s.Running.StartedAt.Format(time.RFC1123Z))
	case s.Terminated != nil:
		t := s.Terminated
		p.field(name, fmt.Sprintf("Terminated: %s, exit code %d", t.Reason, t.ExitCode))
		p.nested(func() {
			if t.Message != "" {
				p.field("Message", t.Message)
			}
			p.field("Started", t.StartedAt.Format(time.RFC1123Z))
			p.field("Finished", t.FinishedAt.Format(time.RFC1123Z))
		})
	case s.Waiting != nil:
		p.field(name, "Waiting: "+s.Waiting.Reason)
		if s.Waiting.Message != "" {
			p.nested(func() {
				p.field("Message", s.Waiting.Message)
				if percent, ok := cri.ParseProgress(s.Waiting.Message); ok {
					p.field("Progress", bar(percent))
				}
			})
		}
	default:
		p.field(name, "Waiting")
	}
}

func describeResources(p *printer, name string, list corev1.ResourceList) {
	if len(list) == 0 {
		return
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(list)) {
		q := list[k]
		parts = append(parts, fmt.Sprintf("%s=%s", k, q.String()))
	}
	p.field(name, strings.Join(parts, ", "))
}

func volumeKind(v *corev1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return "EmptyDir"
	case v.HostPath != nil:
		return "HostPath " + v.HostPath.Path
	case v.ConfigMap != nil:
		return "ConfigMap " + v.ConfigMap.Name
	case v.Secret != nil:
		return "Secret " + v.Secret.SecretName
	case v.DownwardAPI != nil:
		return "DownwardAPI"
	case v.Projected != nil:
		return "Projected"
	default:
		return "unsupported"
	}
}

func describeEvents(p *printer, events []corev1.Event, now time.Time) {
	if len(events) == 0 {
		p.field("Events", "<none>")
		return
	}
	p.line("Events:")
	if p.err != nil {
		return
	}
	t := &table{header: []string{"  Type", "Reason", "Age", "Message"}}
	for _, e := range events {
		age := duration.HumanDuration(now.Sub(e.LastTimestamp.Time))
		if e.Count > 1 {
			age += fmt.Sprintf(" (x%d over %s)", e.Count, duration.HumanDuration(now.Sub(e.FirstTimestamp.Time)))
		}
		t.add([]string{"  " + e.Type, e.Reason, age, strings.TrimSpace(e.Message)})
	}
	p.err = t.print(p.out, true)
}
