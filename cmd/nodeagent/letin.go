package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// askNodeTimeout bounds how long the admission of a pod waits for the API server.
const askNodeTimeout = 5 * time.Second

// knownNode is what is known of this machine's Node, nil while there is none.
func (a *agent) knownNode() *corev1.Node {
	if a.member == nil {
		return nil
	}
	return a.member.Object()
}

// askNode reads the Node from the API server: what is known may be a moment old.
func (a *agent) askNode(ctx context.Context) (*corev1.Node, error) {
	if a.cluster == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askNodeTimeout)
	defer cancel()
	return a.cluster.core.Nodes().Get(ctx, a.cfg.Agent.NodeName, metav1.GetOptions{})
}
