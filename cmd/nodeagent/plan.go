package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/podsource"
)

func newPlanCommand() *cobra.Command {
	var file, output string
	flags := &runFlags{}
	c := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show the cgroups, limits and OCI specs that a manifest would get, without running anything",
		Long: "Show the cgroups and limits that the pods of a manifest would get on this machine, with its cgroup version and driver, " +
			"and the OCI spec of each container (-o yaml or -o json). Nothing is run, nothing is changed, and neither containerd " +
			"nor the agent is asked: what only an image knows is missing from the specs. ConfigMaps and Secrets are those of the same file.",
		Example: "  nodeagent plan -f pod.yaml\n  nodeagent plan -f pod.yaml -o yaml\n  kubectl get pod web -o yaml | nodeagent plan -f -",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := readFileOrStdin(file, c.InOrStdin())
			if err != nil {
				return fmt.Errorf("read manifest: %w", err)
			}
			plans, err := makePlans(c.Context(), flags, file, data)
			if err != nil {
				return err
			}
			if output != "" {
				return printObject(c.OutOrStdout(), output, map[string]any{"pods": plans})
			}
			for i, p := range plans {
				if i > 0 {
					fmt.Fprintln(c.OutOrStdout())
				}
				if err := p.print(c.OutOrStdout()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags.add(c)
	c.Flags().StringVarP(&file, "filename", "f", "", "manifest, or - for standard input")
	c.Flags().StringVarP(&output, "output", "o", "", "json, yaml or jsonpath=TEMPLATE: everything, with the OCI specs")
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

// makePlans plans the pods of a manifest. Its error has every problem of the file.
func makePlans(ctx context.Context, flags *runFlags, file string, data []byte) ([]podPlan, error) {
	cfg, err := flags.load()
	if err != nil {
		return nil, err
	}
	if file == "-" {
		file = "standard input"
	}
	parsed, problems := podsource.ParseFile(file, data, cfg.Agent.NodeName)
	if len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = p
		}
		return nil, errors.Join(errs...)
	}
	if len(parsed.Pods) == 0 {
		return nil, fmt.Errorf("%s: holds no pod", file)
	}
	tree, err := newTree(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	defer tree.Close()
	p := newPlanner(cfg, tree, parsed)
	var plans []podPlan
	for _, pod := range parsed.Pods {
		plan, err := p.pod(pod)
		if err != nil {
			return nil, fmt.Errorf("%s: pod %s/%s: %w", file, pod.Namespace, pod.Name, err)
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

// objectsOf finds the config maps and secrets of one file.
func objectsOf(p podsource.Parsed) (configMap func(context.Context, *corev1.Pod, string) (*corev1.ConfigMap, error), secret func(context.Context, *corev1.Pod, string) (*corev1.Secret, error)) {
	maps, secrets := map[types.NamespacedName]*corev1.ConfigMap{}, map[types.NamespacedName]*corev1.Secret{}
	for _, c := range p.ConfigMaps {
		maps[types.NamespacedName{Namespace: c.Namespace, Name: c.Name}] = c
	}
	for _, s := range p.Secrets {
		secrets[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
	}
	missing := func(kind, name string) error {
		return fmt.Errorf("%s %q is not in this file: %w", kind, name, fs.ErrNotExist)
	}
	return func(_ context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error) {
			if c := maps[types.NamespacedName{Namespace: pod.Namespace, Name: name}]; c != nil {
				return c, nil
			}
			return nil, missing("configmap", name)
		}, func(_ context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error) {
			if s := secrets[types.NamespacedName{Namespace: pod.Namespace, Name: name}]; s != nil {
				return s, nil
			}
			return nil, missing("secret", name)
		}
}
