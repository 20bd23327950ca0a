package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/podsource"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

func newPlanCommand() *cobra.Command {
	var file string
	flags := &runFlags{}
	c := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show the cgroups and limits that a manifest would get, without running anything",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := flags.load()
			if err != nil {
				return err
			}
			data, err := readFileOrStdin(file, c.InOrStdin())
			if err != nil {
				return err
			}
			parsed, problems := podsource.ParseFile(file, data, cfg.Agent.NodeName)
			if len(problems) > 0 {
				return problems[0]
			}
			tree, err := newTree(c.Context(), cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				return fmt.Errorf("cgroups: %w", err)
			}
			defer tree.Close()
			for _, pod := range parsed.Pods {
				if err := printPlan(c.Context(), c.OutOrStdout(), tree, pod); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags.add(c)
	c.Flags().StringVarP(&file, "filename", "f", "", "manifest, or - for standard input")
	if err := c.MarkFlagRequired("filename"); err != nil {
		panic(err) // the flag is defined one line above
	}
	return c
}

func readFileOrStdin(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file)
}

func printPlan(_ context.Context, out io.Writer, tree *qos.Tree, pod *corev1.Pod) error {
	cgroup, settings, err := tree.Plan(pod)
	if err != nil {
		return err
	}
	p := &printer{out: out}
	p.field("Pod", pod.Namespace+"/"+pod.Name)
	p.field("QoS Class", string(qos.ComputeClass(pod)))
	p.field("Cgroup", cgroup.Path)
	if cgroup.Unit != "" {
		p.field("Unit", cgroup.Unit)
	}
	if p.err != nil {
		return p.err
	}
	t := &table{header: []string{"FILE", "VALUE", "UNIT PROPERTY"}}
	for _, s := range settings {
		if s.File != "" {
			t.add([]string{s.File, s.Value, orNone(s.Property)})
		}
	}
	if err := t.print(out, true); err != nil {
		return err
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			res := tree.Container(pod, c)
			p.line("")
			p.line("Container %s", c.Name)
			p.nested(func() {
				p.field("cgroupsPath", cgroup.ContainerPath("<id>"))
				p.field("oom_score_adj", fmt.Sprint(res.OOMScoreAdj))
			})
			if p.err != nil {
				return p.err
			}
			if err := printObject(out, "yaml", map[string]any{"resources": res.Linux}); err != nil {
				return err
			}
		}
	}
	return nil
}
