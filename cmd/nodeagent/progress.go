package main

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// pulling is the STATUS of a pod that waits for an image, with a bar: of several
// pulls the one that is least far. It is empty when there is none.
func pulling(p *corev1.Pod) string {
	least := -1
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.State.Waiting == nil {
			continue
		}
		if percent, ok := cri.ParseProgress(s.State.Waiting.Message); ok && (least < 0 || percent < least) {
			least = percent
		}
	}
	if least < 0 || p.DeletionTimestamp != nil {
		return ""
	}
	return "Pulling" + bar(least)
}

// bar draws a percentage without a blank, so that columns stay columns.
func bar(percent int) string {
	const width = 10
	done := min(max(percent, 0), 100) * width / 100
	return fmt.Sprintf("[%s%s]%d%%", strings.Repeat("#", done), strings.Repeat(".", width-done), percent)
}
