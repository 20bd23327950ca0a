package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// annotationInstance says, on the Lease, which agent renews it. The holder's
// identity cannot: for a node that is the node's name.
const annotationInstance = "nodeagent.dev/instance"

// TakenError says that another agent has this node's name.
type TakenError struct {
	Node  string
	Lease *coordinationv1.Lease // as the other one has renewed it
}

func (e *TakenError) Error() string {
	who := "a kubelet"
	if id := e.Lease.Annotations[annotationInstance]; id != "" {
		who = "another agent (" + id + ")"
	}
	return fmt.Sprintf("node name %q is in use: %s renews its lease, the last time %s by its clock; stop that one, or give this node another name with --hostname-override",
		e.Node, who, ptr.Deref(e.Lease.Spec.RenewTime, metav1.MicroTime{}).UTC().Format(time.RFC3339))
}

func isTaken(err error) bool {
	_, taken := errors.AsType[*TakenError](err)
	return taken
}

// verdict is what is to be done about a lease.
type verdict int

const (
	mine verdict = iota // renew it
	wait                // see whether someone else renews it
	held                // someone does
)

// sighting is a lease as it was when this agent first saw it.
type sighting struct {
	renewed metav1.MicroTime
	at      time.Time
}

// judge decides whose a lease is. That of an agent that is gone stays as it is for
// its whole duration; only changes count, since the other's clock may be wrong,
// or ours.
func judge(l *coordinationv1.Lease, self string, first *sighting, now time.Time, duration time.Duration) verdict {
	switch {
	case l.Annotations[annotationInstance] == self, ptr.Deref(l.Spec.HolderIdentity, "") == "":
		return mine
	case first == nil:
		return wait
	case !first.renewed.Equal(l.Spec.RenewTime):
		return held
	case now.Sub(first.at) >= max(duration, time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0))*time.Second):
		return mine
	default:
		return wait
	}
}

// claim makes the node's name this agent's, and returns the lease that says so,
// or nil when ctx has ended. It waits for an API server that is away.
func (n *Node) claim(ctx context.Context) (*coordinationv1.Lease, error) {
	retry, said := firstRetry, ""
	var first *sighting
	for {
		again := n.LeaseDuration / leaseShare
		lease, current, err := n.tryClaim(ctx, first)
		switch {
		case ctx.Err() != nil:
			return nil, nil
		case isTaken(err):
			return nil, err
		case err != nil:
			again, retry = retry, min(2*retry, again)
			if err.Error() != said {
				n.Log.Warn("node's name is not claimed yet", "node", n.Name, "err", err)
			}
			said = err.Error()
		case lease != nil:
			return lease, nil
		case first == nil:
			first = &sighting{renewed: ptr.Deref(current.Spec.RenewTime, metav1.MicroTime{}), at: time.Now()}
			n.Log.Info("someone else had this node's name; waiting to see whether they still have", "node", n.Name, "for", n.LeaseDuration)
		}
		pause(ctx, again)
	}
}

// tryClaim returns the lease if it could be had, else the one that is there.
func (n *Node) tryClaim(ctx context.Context, first *sighting) (claimed, current *coordinationv1.Lease, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	current, err = n.Leases.Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		claimed, err = n.createLease(ctx)
		return claimed, nil, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("get lease %s: %w", n.Name, err)
	}
	switch judge(current, n.Instance, first, time.Now(), n.LeaseDuration) {
	case held:
		return nil, nil, &TakenError{Node: n.Name, Lease: current}
	case wait:
		return nil, current, nil
	default: // mine, unless someone was faster
	}
	claimed, err = n.Leases.Update(ctx, n.lease(current, time.Now()), metav1.UpdateOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("claim lease %s: %w", n.Name, err)
	}
	return claimed, nil, nil
}

// Instance is the identity of the agent that keeps its state in dir, on this very
// machine: a disk that was copied to another one makes another instance.
func Instance(dir, systemUUID string) (string, error) {
	path := filepath.Join(dir, "instance")
	seed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(strings.TrimSpace(string(seed))) == 0 {
		seed = []byte(rand.Text() + "\n")
		if err = os.MkdirAll(dir, 0o711); err == nil {
			err = writeFile(path, seed, 0o600)
		}
	}
	if err != nil {
		return "", fmt.Errorf("identity of this agent: %w", err)
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(string(seed)) + "/" + systemUUID))
	return hex.EncodeToString(sum[:8]), nil
}

// writeFile replaces a file, so that it is there as a whole or not at all.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
