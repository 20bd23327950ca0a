package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func newImagesCommand(f *clientFlags) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "images",
		Short: "Show the images of this machine",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var list []cri.Image
			if err := newClient(f.socket).get(c.Context(), &list, "nodeagent/v1/images"); err != nil {
				return err
			}
			if output != "" {
				return printObject(c.OutOrStdout(), output, list)
			}
			t := &table{header: []string{"IMAGE", "ID", "SIZE"}}
			for _, i := range list {
				t.add([]string{i.Name, strings.TrimPrefix(i.ID, "sha256:")[:12], bytesText(uint64(i.Size))})
			}
			return t.print(c.OutOrStdout(), true)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, yaml or jsonpath=TEMPLATE")
	return c
}
