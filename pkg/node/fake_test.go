package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// leases is an API server that holds one lease, and refuses to write over one that
// the writer has not seen.
type leases struct {
	coordinationclient.LeaseInterface

	mu      sync.Mutex // guards all below
	version int
	lease   *coordinationv1.Lease
	down    error
	updates int
}

func (l *leases) Get(_ context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.down != nil:
		return nil, l.down
	case l.lease == nil:
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "leases"}, name)
	}
	return l.lease.DeepCopy(), nil
}

func (l *leases) Create(_ context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.down != nil:
		return nil, l.down
	case l.lease != nil:
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "leases"}, lease.Name)
	}
	return l.put(lease), nil
}

func (l *leases) Update(_ context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gr := schema.GroupResource{Resource: "leases"}
	switch {
	case l.down != nil:
		return nil, l.down
	case l.lease == nil:
		return nil, apierrors.NewNotFound(gr, lease.Name)
	case lease.ResourceVersion != l.lease.ResourceVersion:
		return nil, apierrors.NewConflict(gr, lease.Name, nil)
	}
	l.updates++
	return l.put(lease), nil
}

func (l *leases) put(lease *coordinationv1.Lease) *coordinationv1.Lease {
	l.version++
	l.lease = lease.DeepCopy()
	l.lease.ResourceVersion = fmt.Sprint(l.version)
	return l.lease.DeepCopy()
}

// change is what somebody else does.
func (l *leases) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// nodes is an API server that counts what is written.
type nodes struct {
	corev1client.NodeInterface
	version         int
	creates, status int
	node            *corev1.Node
}

func (n *nodes) Create(_ context.Context, node *corev1.Node, _ metav1.CreateOptions) (*corev1.Node, error) {
	n.creates++
	n.version++
	n.node = node.DeepCopy()
	n.node.UID, n.node.ResourceVersion = types.UID(fmt.Sprint("uid", n.creates)), fmt.Sprint(n.version)
	return n.node.DeepCopy(), nil
}

func (n *nodes) Patch(_ context.Context, _ string, _ types.PatchType, _ []byte, _ metav1.PatchOptions, sub ...string) (*corev1.Node, error) {
	if len(sub) > 0 {
		n.status++
	}
	return n.node.DeepCopy(), nil
}

func newTestNode(l *leases, instance string) *Node {
	return New(Config{
		Name: "n1", Instance: instance, Leases: l, LeaseDuration: 40 * time.Second, CheckEvery: 10 * time.Second, ReportEvery: 5 * time.Minute,
		Observe: func(context.Context) (*Facts, error) { return healthy(), nil }, Event: func(string, string, string) {}, Log: discard(),
	})
}
