package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "v0.0.0-dev"

func newVersionCommand(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of what the agent runs on",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := fmt.Fprintf(c.OutOrStdout(), "Client: %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH); err != nil {
				return err
			}
			var node nodeView
			if err := newClient(f.socket).get(c.Context(), &node, "nodeagent/v1/node"); err != nil {
				_, err = fmt.Fprintf(c.OutOrStdout(), "Agent:  not running\n")
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "Agent:  %s\nKernel: %s\ncontainerd: %s\ncgroup: v%d, %s driver\n",
				node.AgentVersion, node.KernelVersion, node.ContainerdVersion, node.CgroupVersion, node.CgroupDriver)
			return err
		},
	}
}

// nodeView is what the agent says of itself and its machine.
type nodeView struct {
	NodeName          string `json:"nodeName"`
	AgentVersion      string `json:"agentVersion"`
	KernelVersion     string `json:"kernelVersion"`
	ContainerdVersion string `json:"containerdVersion"`
	CgroupVersion     int    `json:"cgroupVersion"`
	CgroupDriver      string `json:"cgroupDriver"`
}
