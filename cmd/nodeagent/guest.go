package main

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// capacity is what this node has of its machine, where that is not everything.
func capacity(cfg config.Config) map[corev1.ResourceName]string {
	out := map[corev1.ResourceName]string{}
	for r, part := range cfg.Agent.Capacity {
		out[corev1.ResourceName(r)] = part
	}
	return out
}
