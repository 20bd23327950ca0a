package node

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// view is the newest that is known of the Node. It is the store of a reflector.
type view struct {
	changed func() // called without the lock

	mu     sync.Mutex // guards all below
	synced bool       // the API server has answered once
	node   *corev1.Node
}

func (v *view) get() (node *corev1.Node, synced bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.node, v.synced
}

// set takes a newer Node. The answer to a patch can be ahead of the watch, which
// must not lead back to what was before.
func (v *view) set(node *corev1.Node) {
	v.mu.Lock()
	if old := v.node; old != nil && old.UID == node.UID {
		if order, err := resourceversion.CompareResourceVersion(node.ResourceVersion, old.ResourceVersion); err == nil && order < 0 {
			v.mu.Unlock()
			return
		}
	}
	v.node, v.synced = node, true
	v.mu.Unlock()
	v.changed()
}

// Add is part of a reflector's store.
func (v *view) Add(obj any) error {
	if node, ok := obj.(*corev1.Node); ok {
		v.set(node)
	}
	return nil
}

// Update is part of a reflector's store.
func (v *view) Update(obj any) error { return v.Add(obj) }

// Delete is part of a reflector's store.
func (v *view) Delete(obj any) error {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return nil
	}
	v.mu.Lock()
	if v.node != nil && v.node.UID == node.UID {
		v.node = nil
	}
	v.mu.Unlock()
	v.changed()
	return nil
}

// Replace is part of a reflector's store.
func (v *view) Replace(list []any, _ string) error {
	if len(list) > 0 {
		return v.Add(list[0])
	}
	v.mu.Lock()
	v.node, v.synced = nil, true
	v.mu.Unlock()
	v.changed()
	return nil
}

// Resync is part of a reflector's store.
func (v *view) Resync() error { return nil }

// follow keeps the view until ctx ends.
func (n *Node) follow(ctx context.Context) error {
	mine := fields.OneTermEqualSelector("metadata.name", n.Name).String()
	r := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = mine
			return n.Nodes.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = mine
			return n.Nodes.Watch(ctx, o)
		},
	}, &corev1.Node{}, &n.view, cache.ReflectorOptions{Name: "node"})
	r.RunWithContext(ctx)
	return nil
}
