package node

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Config is all that a Node needs. Every field is required unless it says so.
type Config struct {
	Name string
	// Instance tells this agent from every other one; it survives a restart.
	Instance string
	Nodes    corev1client.NodeInterface
	// Leases are those of the namespace kube-node-lease, on a connection that nothing
	// else can fill.
	Leases coordinationv1.LeaseInterface
	// Observe looks at the machine. It is called often and must be cheap.
	Observe func(ctx context.Context) (*Facts, error)

	// NoRegister leaves it to others to make the Node.
	NoRegister bool
	// Labels, Taints and ProviderID are the user's; they may be empty. Taints are
	// set when the Node is made and never after.
	Labels map[string]string
	// NoOSLabel leaves the labels of the operating system out: DaemonSets that run on
	// every machine choose by them, and a guest is on a machine that has its own node.
	NoOSLabel  bool
	Taints     []corev1.Taint
	ProviderID string

	// CheckEvery is how often the machine is looked at, ReportEvery how often the
	// status is written although it has not changed.
	CheckEvery, ReportEvery time.Duration
	LeaseDuration           time.Duration
	// Event records what happened to the node; kind is Normal or Warning.
	Event func(kind, reason, message string)
	Log   *slog.Logger
}

// Node is this machine in the API server.
type Node struct {
	Config
	view    view
	kick    chan struct{} // capacity 1: look at once
	claimed chan struct{} // closed when the name is ours
	owner   chan struct{} // capacity 1: the lease has to learn of its owner

	// Of the status loop alone.
	known   types.UID // of the Node that was last registered or adopted
	written time.Time // when its status last was
}

// New starts nothing; see Run.
func New(cfg Config) *Node {
	n := &Node{Config: cfg, kick: make(chan struct{}, 1), claimed: make(chan struct{}), owner: make(chan struct{}, 1)}
	n.view.changed = n.Kick
	return n
}

// Kick has the machine looked at now. It never blocks.
func (n *Node) Kick() { signal(n.kick) }

// Claimed is closed once this agent may act under its name. Until then pods of
// the API server may be another agent's.
func (n *Node) Claimed() <-chan struct{} { return n.claimed }

// Object is the newest that is known of the Node, nil while there is none. It
// must not be changed.
func (n *Node) Object() *corev1.Node {
	node, _ := n.view.get()
	return node
}

// Run keeps the Node and its Lease until ctx ends. It returns a *TakenError when
// another agent has the name.
func (n *Node) Run(ctx context.Context) error {
	lease, err := n.claim(ctx)
	if err != nil || lease == nil {
		return err
	}
	close(n.claimed)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.follow(ctx) })
	g.Go(func() error { return n.renew(ctx, lease) })
	g.Go(func() error { return n.keep(ctx) })
	return g.Wait()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits, but not beyond ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
