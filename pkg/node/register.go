package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// initial is the Node that registers this machine.
func (n *Node) initial(f *Facts, now time.Time) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.own(f.Hostname)}}
	maps.Copy(node.Labels, n.Labels)
	if text := remembered(n.Labels); text != "" {
		node.Annotations = map[string]string{annotationLabels: text}
	}
	node.Spec.Taints, node.Spec.ProviderID = n.Taints, n.ProviderID
	node.Status = *newStatus(&node.Status, f, now)
	return node
}

// adopted is an existing Node as this agent wants it: labels only. Its taints
// are the administrator's from the first day on.
func (n *Node) adopted(node *corev1.Node, f *Facts) *corev1.Node {
	want := n.own(f.Hostname)
	maps.Copy(want, n.Labels)
	out := node.DeepCopy()
	before := remember(node)
	out.Labels = mergeLabels(node.Labels, before, want)
	if text := remembered(n.Labels); text != node.Annotations[annotationLabels] {
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[annotationLabels] = text
		if text == "" {
			delete(out.Annotations, annotationLabels)
		}
	}
	if out.Spec.ProviderID == "" { // it can be set once
		out.Spec.ProviderID = n.ProviderID
	}
	return out
}

// register makes the Node. One that is there by now comes with the watch.
func (n *Node) register(ctx context.Context, f *Facts, now time.Time) error {
	node, err := n.Nodes.Create(ctx, n.initial(f, now), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		if node, err = n.Nodes.Get(ctx, n.Name, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("get node %s: %w", n.Name, err)
		}
		n.view.set(node)
		return nil
	}
	if err != nil {
		return fmt.Errorf("register node %s: %w", n.Name, err)
	}
	n.Log.Info("node registered", "node", n.Name)
	n.known, n.written = node.UID, now
	n.view.set(node)
	signal(n.owner)
	return nil
}

// adopt takes on a Node that this agent has not seen before.
func (n *Node) adopt(ctx context.Context, node *corev1.Node, f *Facts) (*corev1.Node, error) {
	want := n.adopted(node, f)
	if !equality.Semantic.DeepEqual(node, want) {
		patch, err := patchOf(node, want)
		if err != nil {
			return nil, err
		}
		if want, err = n.Nodes.Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return nil, fmt.Errorf("adopt node %s: %w", n.Name, err)
		}
		n.view.set(want)
	}
	n.Log.Info("node adopted", "node", n.Name)
	n.known = node.UID
	return want, nil
}

// writeStatus patches what has changed.
func (n *Node) writeStatus(ctx context.Context, node *corev1.Node, status *corev1.NodeStatus) error {
	want := node.DeepCopy()
	want.Status = *status
	patch, err := patchOf(node, want)
	if err != nil {
		return err
	}
	got, err := n.Nodes.Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("patch status of node %s: %w", n.Name, err)
	}
	n.view.set(got)
	return nil
}

// patchOf is what makes have into want. Addresses are replaced as a whole: the
// API merges them by their type, of which there may be two.
func patchOf(have, want *corev1.Node) ([]byte, error) {
	addresses := want.Status.Addresses
	same := equality.Semantic.DeepEqual(have.Status.Addresses, addresses)
	want = want.DeepCopy()
	want.Status.Addresses = have.Status.Addresses
	from, err := json.Marshal(have)
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Node{})
	if err != nil || same {
		return patch, err
	}
	var fields map[string]map[string]any
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, fmt.Errorf("patch of node %s: %w", have.Name, err)
	}
	if fields["status"] == nil {
		fields["status"] = map[string]any{}
	}
	list := []any{map[string]string{"$patch": "replace"}}
	for _, a := range addresses {
		list = append(list, a)
	}
	fields["status"]["addresses"] = list
	return json.Marshal(fields)
}
