package main

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/podsource"
	"github.com/nodeagent/nodeagent/pkg/podsync"
	"github.com/nodeagent/nodeagent/pkg/qos"
	"github.com/nodeagent/nodeagent/pkg/volume"
)

// podPlan is what would become of a pod.
type podPlan struct {
	Namespace     string          `json:"namespace"`
	Name          string          `json:"name"`
	UID           string          `json:"uid"`
	QOSClass      string          `json:"qosClass"`
	CgroupVersion int             `json:"cgroupVersion"`
	CgroupDriver  string          `json:"cgroupDriver"`
	Cgroups       []cgroupPlan    `json:"cgroups"` // from the top down to the pod
	Containers    []containerPlan `json:"containers"`
}

type cgroupPlan struct {
	Path     string        `json:"path"`
	Unit     string        `json:"unit,omitempty"`
	Settings []settingPlan `json:"settings"`
}

type settingPlan struct {
	File     string `json:"file,omitempty"`
	Value    string `json:"value"`
	Property string `json:"property,omitempty"`
}

type containerPlan struct {
	Name        string      `json:"name"`
	Kind        string      `json:"kind"` // container, init container, sidecar
	CgroupsPath string      `json:"cgroupsPath"`
	OOMScoreAdj int         `json:"oomScoreAdj"`
	Spec        *specs.Spec `json:"spec"`
}

// planner knows all that a plan needs.
type planner struct {
	cfg     config.Config
	tree    *qos.Tree
	volumes *volume.Set
	lookups podsync.Lookups
}

func newPlanner(cfg config.Config, tree *qos.Tree, parsed podsource.Parsed) *planner {
	v := &volume.Set{RootDir: cfg.Agent.RootDir, NodeAllocatable: tree.Allocatable()}
	v.ConfigMap, v.Secret = objectsOf(parsed)
	return &planner{cfg: cfg, tree: tree, volumes: v, lookups: podsync.Lookups{
		ConfigMap: v.ConfigMap, Secret: v.Secret, Field: volume.FieldValue, Resource: v.ResourceValue,
	}}
}

func (p *planner) pod(pod *corev1.Pod) (podPlan, error) {
	out := podPlan{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), QOSClass: string(qos.ComputeClass(pod)),
		CgroupVersion: p.tree.Version(), CgroupDriver: "cgroupfs",
	}
	if p.tree.SystemdDriver() {
		out.CgroupDriver = "systemd"
	}
	levels, err := p.tree.PlanTree(pod)
	if err != nil {
		return out, err
	}
	for _, l := range levels {
		c := cgroupPlan{Path: l.Cgroup.Path, Unit: l.Cgroup.Unit, Settings: []settingPlan{}}
		for _, s := range l.Settings {
			c.Settings = append(c.Settings, settingPlan{s.File, s.Value, s.Property})
		}
		out.Cgroups = append(out.Cgroups, c)
	}
	pod = pod.DeepCopy()
	pod.Status.PodIP, pod.Status.PodIPs = "<pod IP>", []corev1.PodIP{{IP: "<pod IP>"}}
	pod.Status.HostIP, pod.Status.HostIPs = "<host IP>", []corev1.HostIP{{IP: "<host IP>"}}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c, err := p.container(pod, &list[i], levels[len(levels)-1].Cgroup)
			if err != nil {
				return out, fmt.Errorf("container %s: %w", list[i].Name, err)
			}
			out.Containers = append(out.Containers, c)
		}
	}
	return out, nil
}

func (p *planner) container(pod *corev1.Pod, c *corev1.Container, cgroup qos.PodCgroup) (containerPlan, error) {
	volumes, err := p.volumes.Plan(pod)
	if err != nil {
		return containerPlan{}, err
	}
	preview := podsync.Preview{
		Lookups: p.lookups, Volumes: volumes, SubPath: p.volumes.PlanSubPath,
		ClusterDomain: p.cfg.Kubelet.ClusterDomain, SeccompDefault: ptr.Deref(p.cfg.Kubelet.SeccompDefault, false),
	}
	cfg, hostname, err := preview.Container(pod, c)
	if err != nil {
		return containerPlan{}, err
	}
	limits := p.tree.Container(pod, c)
	cfg.CgroupsPath, cfg.Resources, cfg.OOMScoreAdj = cgroup.ContainerPath, limits.Linux, limits.OOMScoreAdj
	if c.TerminationMessagePath != "" {
		cfg.TerminationLog = path.Join(p.cfg.Agent.RootDir, "pods", string(pod.UID), "containers", c.Name, cri.Planned)
	}
	spec, err := cri.PlanSpec(cri.Config{StateDir: p.cfg.Agent.StateDir, CgroupV2: p.tree.Version() == 2}, hostname, cfg)
	if err != nil {
		return containerPlan{}, err
	}
	return containerPlan{
		Name: c.Name, Kind: kindOf(pod, c), CgroupsPath: cgroup.ContainerPath(cri.Planned), OOMScoreAdj: limits.OOMScoreAdj, Spec: spec,
	}, nil
}

func kindOf(pod *corev1.Pod, c *corev1.Container) string {
	switch {
	case isSidecar(c):
		return "sidecar"
	case slices.ContainsFunc(pod.Spec.InitContainers, func(i corev1.Container) bool { return i.Name == c.Name }):
		return "init container"
	default:
		return "container"
	}
}

// print writes the tree with the values of each level; the OCI spec is for those
// who ask for all.
func (p podPlan) print(out io.Writer) error {
	w := &printer{out: out}
	w.field("Pod", p.Namespace+"/"+p.Name)
	w.field("QoS Class", p.QOSClass)
	w.field("Cgroups", fmt.Sprintf("v%d, %s", p.CgroupVersion, p.CgroupDriver))
	t := &table{header: []string{"CGROUP", "FILE", "VALUE", "UNIT PROPERTY"}}
	for depth, c := range p.Cgroups {
		name := strings.Repeat("  ", depth) + path.Base(c.Path)
		for _, s := range c.Settings {
			t.add([]string{name, orNone(s.File), s.Value, orNone(s.Property)})
			name = ""
		}
		if len(c.Settings) == 0 {
			t.add([]string{name, "<none>", "", ""})
		}
	}
	if w.line(""); w.err != nil {
		return w.err
	}
	if err := t.print(out, true); err != nil {
		return err
	}
	for _, c := range p.Containers {
		w.line("")
		w.line("%s %s", strings.ToUpper(c.Kind[:1])+c.Kind[1:], c.Name)
		w.nested(func() {
			w.field("cgroupsPath", c.CgroupsPath)
			w.field("oom_score_adj", fmt.Sprint(c.OOMScoreAdj))
		})
		var resources strings.Builder
		if err := printObject(&resources, "yaml", map[string]any{"resources": c.Spec.Linux.Resources}); err != nil {
			return err
		}
		w.nested(func() {
			for line := range strings.Lines(resources.String()) {
				w.line("%s", strings.TrimSuffix(line, "\n"))
			}
		})
	}
	w.line("")
	w.line("The OCI spec of each container: -o yaml")
	return w.err
}
