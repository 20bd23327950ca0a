package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func newRestartCommand(f *clientFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "restart POD[/CONTAINER]",
		Short: "Restart a pod's containers in place",
		Long: "Ends the containers of a pod, or one of them, with their grace period and starts them again.\n" +
			"The pod keeps its IP, its volumes and its place on this node.",
		Args: oneArg("one pod, or one of its containers"),
		RunE: func(c *cobra.Command, args []string) error {
			name, container, _ := strings.Cut(strings.TrimPrefix(args[0], "pod/"), "/")
			cl := newClient(f.socket)
			pod, err := cl.pod(c.Context(), f.namespace, name)
			if err != nil {
				return err
			}
			query := url.Values{}
			if container != "" {
				if container, err = containerOf(pod, container); err != nil {
					return err
				}
				query.Set("container", container)
			}
			body, err := cl.do(c.Context(), http.MethodPost, agentURL(query, "nodeagent/v1/restart", pod.Namespace, pod.Name))
			if err != nil {
				return err
			}
			defer body.Close()
			what := "pod/" + pod.Name
			if container != "" {
				what = fmt.Sprintf("container %s of %s", container, what)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), what, "restarted")
			return err
		},
		ValidArgsFunction: completePodsAndContainers(f),
	}
	f.podFlags(c)
	return c
}
