package main

import (
	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

const holdLogsCommand = "hold-logs"

func newHoldLogsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    holdLogsCommand,
		Short:  "Keep the streams of running containers open while no agent runs (started by the agent)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return cri.HoldMain() },
	}
}
