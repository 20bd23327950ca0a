package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/config"
)

func newConfigCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Look at configuration files"}
	c.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a configuration file, and what has no effect",
		Args:  oneArg("one file"),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0])
			if err != nil {
				return err
			}
			for _, field := range cfg.Unsupported {
				if _, err := fmt.Fprintf(c.OutOrStdout(), "%s: line %d: %s: has no effect yet\n", args[0], cfg.Line(field), field); err != nil {
					return err
				}
			}
			if errs := cfg.Validate(); len(errs) > 0 {
				return invalid(args[0], errs)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is valid\n", args[0])
			return err
		},
	})
	return c
}
