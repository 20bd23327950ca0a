package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nodeagent/nodeagent/pkg/server"
)

type getOptions struct {
	*clientFlags
	output   string
	selector string
	watch    bool
	noHeader bool
}

func newGetCommand(f *clientFlags) *cobra.Command {
	o := &getOptions{clientFlags: f}
	get := parent("get", "Show pods, or the problems of the manifest directory")
	pods := &cobra.Command{
		Use:     "pods [NAME...]",
		Aliases: []string{"pod", "po"},
		Short:   "Show the pods of this machine",
		Example: "  nodeagent get pods -A -o wide\n  nodeagent get pods web -o jsonpath='{.status.podIP}'",
		RunE: func(c *cobra.Command, args []string) error {
			return o.pods(c, args)
		},
		ValidArgsFunction: completeSeveralPods(f),
	}
	o.podFlags(pods)
	pods.Flags().BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "pods of every namespace")
	pods.Flags().StringVarP(&o.output, "output", "o", "", "wide, name, json, yaml or jsonpath=TEMPLATE")
	pods.Flags().StringVarP(&o.selector, "selector", "l", "", "label selector")
	pods.Flags().BoolVarP(&o.watch, "watch", "w", false, "show changes as they happen")
	pods.Flags().BoolVar(&o.noHeader, "no-headers", false, "leave out the heading")

	problems := &cobra.Command{
		Use:   "problems",
		Short: "Show what is wrong in the manifest directory",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var list []problem
			if err := newClient(f.socket).get(c.Context(), &list, "nodeagent/v1/problems"); err != nil {
				return err
			}
			if len(list) == 0 {
				fmt.Fprintln(c.ErrOrStderr(), "No problems found.")
			}
			return printProblems(c.OutOrStdout(), list)
		},
	}
	get.AddCommand(pods, problems)
	return get
}

func (o *getOptions) pods(c *cobra.Command, args []string) error {
	ctx, out := c.Context(), c.OutOrStdout()
	if err := checkOutput(o.output, "wide", "name"); err != nil {
		return err
	}
	selector, err := labels.Parse(o.selector)
	if err != nil {
		return fmt.Errorf("selector %q: %w", o.selector, err)
	}
	if o.selector != "" && len(args) > 0 {
		return errors.New("name pods, or select some with -l")
	}
	cl := newClient(o.socket)
	wanted := func(p *corev1.Pod) bool {
		return (o.allNamespaces || p.Namespace == o.namespace) && selector.Matches(labels.Set(p.Labels)) &&
			(len(args) == 0 || slices.ContainsFunc(args, func(name string) bool { return p.Name == name || hasShortName(p, name) }))
	}
	if o.watch {
		return o.watchPods(ctx, cl, out, wanted)
	}
	pods, err := cl.pods(ctx)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		return o.named(out, pods, args)
	}
	pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return !wanted(&p) })
	if len(pods) == 0 && (o.output == "" || o.output == "wide") {
		if o.allNamespaces {
			fmt.Fprintln(c.ErrOrStderr(), "No pods found.")
		} else {
			fmt.Fprintf(c.ErrOrStderr(), "No pods found in %s namespace.\n", o.namespace)
		}
		return nil
	}
	return o.print(out, pods, listOf(pods))
}

func listOf(pods []corev1.Pod) *corev1.PodList {
	return &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"}, Items: pods}
}

// named prints the pods of these names in their order, and what is wrong with
// the others' afterwards.
func (o *getOptions) named(out io.Writer, pods []corev1.Pod, names []string) error {
	var found []corev1.Pod
	var errs []error
	for _, name := range names {
		pod, err := podNamed(pods, o.namespace, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, *pod)
	}
	if len(found) > 0 {
		var object any = listOf(found)
		if len(names) == 1 {
			object = &found[0]
		}
		errs = append(errs, o.print(out, found, object))
	}
	return errors.Join(errs...)
}

func (o *getOptions) watchPods(ctx context.Context, cl *client, out io.Writer, wanted func(*corev1.Pod) bool) error {
	header := !o.noHeader
	t := podTable(o.output == "wide", o.allNamespaces)
	return cl.watch(ctx, func(e server.PodEvent) error {
		if !wanted(&e.Object) {
			return nil
		}
		if o.output != "" && o.output != "wide" {
			return printObject(out, o.output, &e.Object)
		}
		t.rows = [][]string{podRow(&e.Object, time.Now(), o.output == "wide", o.allNamespaces)}
		err := t.print(out, header)
		header = false
		return err
	})
}

func (o *getOptions) print(out io.Writer, pods []corev1.Pod, object any) error {
	switch o.output {
	case "", "wide":
		t := podTable(o.output == "wide", o.allNamespaces)
		for i := range pods {
			t.add(podRow(&pods[i], time.Now(), o.output == "wide", o.allNamespaces))
		}
		return t.print(out, !o.noHeader)
	case "name":
		for i := range pods {
			if _, err := fmt.Fprintln(out, "pod/"+pods[i].Name); err != nil {
				return err
			}
		}
		return nil
	default:
		return printObject(out, o.output, object)
	}
}

// problem is one thing wrong in the manifest directory, as the agent reports it.
type problem struct {
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Pod   string `json:"pod,omitempty"`
	Error string `json:"error"`
}

func printProblems(out io.Writer, list []problem) error {
	for _, p := range list {
		where := p.File
		if p.Line > 0 {
			where = fmt.Sprintf("%s:%d", p.File, p.Line)
		}
		if _, err := fmt.Fprintf(out, "%s: %s\n", where, strings.TrimSpace(p.Error)); err != nil {
			return err
		}
	}
	return nil
}
