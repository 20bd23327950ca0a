package main

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/node"
	"github.com/nodeagent/nodeagent/pkg/podsync"
)

// shutdownShares read how much time pods have when the machine shuts down.
func shutdownShares(cfg config.Config) []node.Share {
	k := cfg.Kubelet
	var shares []node.Share
	for _, p := range k.ShutdownGracePeriodByPodPriority {
		shares = append(shares, node.Share{Priority: p.Priority, Grace: time.Duration(p.ShutdownGracePeriodSeconds) * time.Second})
	}
	if len(shares) == 0 {
		shares = node.Shares(k.ShutdownGracePeriod.Duration, k.ShutdownGracePeriodCriticalPods.Duration)
	}
	return shares
}

// newShutdown ends pods in order when the machine shuts down, nil without time for
// that. It serves a machine without a cluster as well.
func (a *agent) newShutdown() *node.Shutdown {
	shares := shutdownShares(a.cfg)
	if node.Sum(shares) == 0 {
		return nil
	}
	return &node.Shutdown{
		Shares: shares, Address: "unix:path=/run/dbus/system_bus_socket", ConfDir: "/etc/systemd/logind.conf.d",
		Pods: a.desired.Pods,
		End: func(uid types.UID, grace time.Duration) {
			a.desired.EvictWith(uid, podsync.Eviction{Reason: node.ShutdownReason, Message: node.ShutdownMessage, Disruption: true, Grace: max(grace, time.Millisecond)}) // 0 would be its own
		},
		Ended: func(uid types.UID) bool {
			status, known := a.pool.Status(uid)
			return !known || status.Phase == corev1.PodFailed || status.Phase == corev1.PodSucceeded
		},
		Changed: func() {
			if a.member != nil {
				a.member.Kick()
			}
		},
		Log: a.log,
	}
}

// closed refuses pods while the machine shuts down.
func (a *agent) closed() *podsync.Rejection {
	if a.shutdown == nil || !a.shutdown.Active() {
		return nil
	}
	return &podsync.Rejection{Reason: node.ShutdownRejected, Message: node.ShutdownRefusal}
}
