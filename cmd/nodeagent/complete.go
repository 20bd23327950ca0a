package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

const noFiles = cobra.ShellCompDirectiveNoFileComp

// runningPods asks the agent for what a shell can offer; without an agent there
// is nothing to offer, and nothing to complain about.
func (f *clientFlags) runningPods(c *cobra.Command) []corev1.Pod {
	pods, err := newClient(f.socket).pods(c.Context())
	if err != nil {
		return nil
	}
	return pods
}

// completePods offers the names of the pods in the chosen namespace, once.
func completePods(f *clientFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return completeSeveralPods(f)(c, args, typed)
	}
}

// completeSeveralPods offers the pods that have not been named yet.
func completeSeveralPods(f *clientFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, p := range f.runningPods(c) {
			if p.Namespace == f.namespace && !slices.Contains(args, p.Name) {
				names = append(names, p.Name)
			}
		}
		return names, noFiles
	}
}

// completePodsAndContainers offers pods, and behind a slash their containers.
func completePodsAndContainers(f *clientFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		name, _, behindSlash := strings.Cut(typed, "/")
		if !behindSlash || len(args) > 0 {
			return completePods(f)(c, args, typed)
		}
		var names []string
		for _, container := range f.containersOf(c, name) {
			names = append(names, name+"/"+container)
		}
		return names, noFiles
	}
}

func (f *clientFlags) containersOf(c *cobra.Command, pod string) []string {
	p, err := newClient(f.socket).pod(c.Context(), f.namespace, pod)
	if err != nil {
		return nil
	}
	return containerNames(p)
}

// completeFlags teaches the shell the values of flags, for c and all below it.
func (f *clientFlags) completeFlags(c *cobra.Command) {
	offer := map[string]cobra.CompletionFunc{
		"container": func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, noFiles
			}
			return f.containersOf(c, args[0]), noFiles
		},
		"namespace": func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, p := range f.runningPods(c) {
				names = append(names, p.Namespace)
			}
			slices.Sort(names)
			return slices.Compact(names), noFiles
		},
		"output": func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			if c.Name() == "pods" {
				return []string{"wide", "name", "json", "yaml", "jsonpath="}, noFiles
			}
			return []string{"json", "yaml", "jsonpath="}, noFiles
		},
		"runtime": func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"auto", "embedded", "external"}, noFiles
		},
	}
	for flag, values := range offer {
		if c.Flags().Lookup(flag) != nil {
			if err := c.RegisterFlagCompletionFunc(flag, values); err != nil {
				panic(err) // the flag exists, and is registered once
			}
		}
	}
	for _, sub := range c.Commands() {
		f.completeFlags(sub)
	}
}
