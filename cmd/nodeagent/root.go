package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// defaultSocket is where the agent listens for the local client.
const defaultSocket = "/run/nodeagent/agent.sock"

// clientFlags are the flags every client command shares.
type clientFlags struct {
	socket        string
	namespace     string
	allNamespaces bool
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "nodeagent",
		Short:         "Run Kubernetes Pods on this machine and see what they may use",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := &clientFlags{}
	root.PersistentFlags().StringVar(&f.socket, "socket", defaultSocket, "unix socket of the agent")

	root.AddGroup(&cobra.Group{ID: "agent", Title: "The agent:"}, &cobra.Group{ID: "pods", Title: "Pods:"},
		&cobra.Group{ID: "machine", Title: "The machine:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("agent", newRunCommand(), newDownCommand(), newConfigCommand(), newVersionCommand(f))
	add("pods", newGetCommand(f), newDescribeCommand(f), newLogsCommand(f), newExecCommand(f), newAttachCommand(f),
		newRestartCommand(f), newInspectCommand(f), newPlanCommand())
	add("machine", newCgroupsCommand(f), newImagesCommand(f), newDoctorCommand())
	root.AddCommand(newHoldLogsCommand())
	f.completeFlags(root)
	return root
}

// podFlags adds the flags that say which namespace a command means.
func (f *clientFlags) podFlags(c *cobra.Command) {
	c.Flags().StringVarP(&f.namespace, "namespace", "n", "default", "namespace of the pod")
}

// oneArg wants one argument, and says what it is and how the command is used.
func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return fmt.Errorf("name %s: %s", what, c.UseLine())
	}
}

// parent is a command that does nothing without one of its own.
func parent(name, short string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, RunE: func(c *cobra.Command, args []string) error {
		var names []string
		for _, sub := range c.Commands() {
			names = append(names, sub.Name())
		}
		slices.Sort(names)
		if len(args) == 0 {
			return fmt.Errorf("%s what? Use one of: %s", name, strings.Join(names, ", "))
		}
		return fmt.Errorf("%s knows no %q; use one of: %s", name, args[0], strings.Join(names, ", "))
	}}
}
