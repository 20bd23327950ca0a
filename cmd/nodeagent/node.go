package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/node"
)

// newNode is this machine in the API server, nil without one.
func (a *agent) newNode() (*node.Node, error) {
	if a.cluster == nil {
		return nil, nil
	}
	info, err := node.ReadInfo(node.SystemRoots())
	if err != nil {
		return nil, err
	}
	instance, err := node.Instance(a.cfg.Agent.RootDir, info.SystemUUID)
	if err != nil {
		return nil, err
	}
	k := a.cfg.Kubelet
	if k.ServerTLSBootstrap {
		if a.serving, err = a.signedServing(); err != nil {
			return nil, err
		}
	}
	m := &machine{agent: a, info: info}
	return node.New(node.Config{
		Name: a.cfg.Agent.NodeName, Instance: instance,
		Nodes: a.cluster.core.Nodes(), Leases: a.cluster.coordination.Leases(corev1.NamespaceNodeLease),
		Observe: m.facts, NoRegister: !ptr.Deref(k.RegisterNode, true),
		Labels: a.cfg.Agent.NodeLabels, NoOSLabel: isGuest(a.cfg), Taints: k.RegisterWithTaints, ProviderID: k.ProviderID,
		CheckEvery: k.NodeStatusUpdateFrequency.Duration, ReportEvery: k.NodeStatusReportFrequency.Duration,
		LeaseDuration: time.Duration(k.NodeLeaseDurationSeconds) * time.Second,
		Event:         a.nodeEvent, Log: a.log,
	}), nil
}

// memberParts keep this machine in the cluster, where there is one.
func (a *agent) memberParts() []func(context.Context) error {
	if a.member == nil {
		return nil
	}
	parts := []func(context.Context) error{a.cluster.Run, a.member.Run}
	if a.serving != nil {
		parts = append(parts, a.serving.Run)
	}
	return parts
}

// whenClaimed runs what acts in the node's name once that is ours.
func (a *agent) whenClaimed(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.member.Claimed():
			return run(ctx)
		}
	}
}

// nodeEvent tells what happened to the node. An event that cannot be written is
// only logged: the condition says the same.
func (a *agent) nodeEvent(kind, reason, message string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	now := metav1.Now()
	name := a.cfg.Agent.NodeName
	_, err := a.cluster.core.Events(metav1.NamespaceDefault).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", name, now.UnixNano()), Namespace: metav1.NamespaceDefault},
		// The name is the UID of a node in events, which is what kubectl looks for.
		InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: name, UID: types.UID(name)},
		Type:           kind, Reason: reason, Message: message, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: "kubelet", Host: name}, ReportingController: "kubelet", ReportingInstance: name,
	}, metav1.CreateOptions{})
	if err != nil {
		a.log.Warn("event of the node not written", "reason", reason, "err", err)
	}
}
