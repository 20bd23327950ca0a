package node

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// firstRetry doubles up to CheckEvery.
const firstRetry = 200 * time.Millisecond

// callTimeout bounds one call of the API server.
const callTimeout = 10 * time.Second

// keep writes the status when it has changed, or is due, until ctx ends.
func (n *Node) keep(ctx context.Context) error {
	retry, said := firstRetry, ""
	for {
		again := n.CheckEvery
		err := n.pass(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			again, retry = retry, min(2*retry, n.CheckEvery)
			if err.Error() != said { // an API server can be away for days
				n.Log.Warn("node is not up to date", "node", n.Name, "err", err)
			}
			said = err.Error()
		default:
			retry, said = firstRetry, ""
		}
		if !n.wait(ctx, again, err != nil) {
			return nil
		}
	}
}

// wait is for the next pass. A failure is not repeated sooner because of a change.
func (n *Node) wait(ctx context.Context, d time.Duration, failed bool) bool {
	kick := n.kick
	if failed {
		kick = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-kick:
	case <-t.C:
	}
	return true
}

// pass brings the Node to where it should be.
func (n *Node) pass(ctx context.Context, now time.Time) error {
	node, synced := n.view.get()
	if !synced {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	facts, err := n.Observe(ctx)
	if err != nil {
		return err
	}
	if node == nil {
		if n.NoRegister {
			return nil
		}
		return n.register(ctx, facts, now)
	}
	due := now.Sub(n.written) >= n.ReportEvery || now.Before(n.written)
	if node.UID != n.known {
		if node, err = n.adopt(ctx, node, facts); err != nil {
			return err
		}
		due = true // others may have taken the node for dead
		signal(n.owner)
	}
	status := newStatus(&node.Status, facts, now)
	if !due && !differs(&node.Status, status) {
		return nil
	}
	if err := n.writeStatus(ctx, node, status); err != nil {
		return err
	}
	n.written = now
	for _, e := range newsOf(n.Name, &node.Status, status) {
		n.Event(e.kind, e.reason, e.message)
	}
	return nil
}

// news is an event of the node.
type news struct{ kind, reason, message string }

// newsOf tells what has become of a node, in the kubelet's words.
func newsOf(name string, old, s *corev1.NodeStatus) []news {
	var out []news
	if was, is := old.NodeInfo.BootID, s.NodeInfo.BootID; was != "" && was != is {
		out = append(out, news{corev1.EventTypeWarning, "Rebooted", "Node " + name + " has been rebooted, boot id: " + is})
	}
	for _, c := range s.Conditions {
		reason := ""
		switch on := c.Status == corev1.ConditionTrue; c.Type {
		case corev1.NodeReady:
			reason = choose(on, "NodeReady", "NodeNotReady")
		case corev1.NodeMemoryPressure:
			reason = choose(on, "NodeHasInsufficientMemory", "NodeHasSufficientMemory")
		case corev1.NodeDiskPressure:
			reason = choose(on, "NodeHasDiskPressure", "NodeHasNoDiskPressure")
		case corev1.NodePIDPressure:
			reason = choose(on, "NodeHasInsufficientPID", "NodeHasSufficientPID")
		default:
			continue // someone else's
		}
		if conditionStatus(old, c.Type) != c.Status {
			out = append(out, news{corev1.EventTypeNormal, reason, "Node " + name + " status is now: " + reason})
		}
	}
	return out
}

func choose(on bool, yes, no string) string {
	if on {
		return yes
	}
	return no
}

func conditionStatus(s *corev1.NodeStatus, kind corev1.NodeConditionType) corev1.ConditionStatus {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}
