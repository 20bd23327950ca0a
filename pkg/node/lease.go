package node

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leaseShare is how often a lease is renewed in its lifetime.
const leaseShare = 4

// renew keeps the lease until ctx ends, or another agent has it.
func (n *Node) renew(ctx context.Context, lease *coordinationv1.Lease) error {
	every := n.LeaseDuration / leaseShare
	retry, said := firstRetry, ""
	for {
		again := every
		next, err := n.renewOnce(ctx, lease)
		switch {
		case ctx.Err() != nil:
			return nil
		case isTaken(err):
			return err
		case err != nil:
			again, retry = retry, min(2*retry, every)
			if err.Error() != said {
				n.Log.Warn("lease of the node is not renewed", "node", n.Name, "err", err)
			}
			said = err.Error()
		default:
			lease, retry, said = next, firstRetry, ""
		}
		t := time.NewTimer(again)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-n.owner: // its owner is known now, or is another one
		}
		t.Stop()
	}
}

// renewOnce writes the lease over the one that this agent has last seen, and if
// there is another by now, decides anew whose it is.
func (n *Node) renewOnce(ctx context.Context, last *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	next := n.lease(last, time.Now())
	got, err := n.Leases.Update(ctx, next, metav1.UpdateOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if got, err = n.createLease(ctx); err == nil || !apierrors.IsAlreadyExists(err) {
			return got, err
		}
	case !apierrors.IsConflict(err):
		if err != nil {
			return nil, fmt.Errorf("renew lease %s: %w", n.Name, err)
		}
		return got, nil
	}
	current, err := n.Leases.Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get lease %s: %w", n.Name, err)
	}
	// Without any mark it is still ours: someone has tidied up.
	if who := current.Annotations[annotationInstance]; who != "" && who != n.Instance {
		return nil, &TakenError{Node: n.Name, Lease: current}
	}
	if got, err = n.Leases.Update(ctx, n.lease(current, time.Now()), metav1.UpdateOptions{}); err != nil {
		return nil, fmt.Errorf("renew lease %s: %w", n.Name, err)
	}
	return got, nil
}

func (n *Node) createLease(ctx context.Context) (*coordinationv1.Lease, error) {
	fresh := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Namespace: corev1.NamespaceNodeLease}}
	got, err := n.Leases.Create(ctx, n.lease(fresh, time.Now()), metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create lease %s: %w", n.Name, err)
	}
	return got, nil
}

// lease is what last becomes when it is renewed now.
func (n *Node) lease(last *coordinationv1.Lease, now time.Time) *coordinationv1.Lease {
	l := last.DeepCopy()
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Annotations[annotationInstance] = n.Instance
	l.Spec.HolderIdentity = &n.Name
	l.Spec.LeaseDurationSeconds = new(int32(n.LeaseDuration / time.Second))
	l.Spec.RenewTime = &metav1.MicroTime{Time: now}
	if node, _ := n.view.get(); node != nil { // it goes with the Node
		l.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Node", Name: node.Name, UID: node.UID,
		}}
	}
	return l
}
