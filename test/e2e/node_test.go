//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
)

// eventually polls what the API server says.
func eventually(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), poll, patience, true, done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestNodeStatus(t *testing.T) {
	node, err := cluster.client.CoreV1().Nodes().Get(t.Context(), cluster.node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := version.ParseSemantic(node.Status.NodeInfo.KubeletVersion); err != nil || v.Major() != 1 {
		t.Errorf("kubelet version %q: %v", node.Status.NodeInfo.KubeletVersion, err)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods, corev1.ResourceEphemeralStorage} {
		capacity, allocatable := node.Status.Capacity[name], node.Status.Allocatable[name]
		if capacity.Sign() <= 0 || allocatable.Sign() <= 0 || allocatable.Cmp(capacity) > 0 {
			t.Errorf("%s: capacity %s, allocatable %s", name, capacity.String(), allocatable.String())
		}
	}
	conditions := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, c := range node.Status.Conditions {
		conditions[c.Type] = c.Status
	}
	for kind, want := range map[corev1.NodeConditionType]corev1.ConditionStatus{
		corev1.NodeReady: corev1.ConditionTrue, corev1.NodeMemoryPressure: corev1.ConditionFalse,
		corev1.NodeDiskPressure: corev1.ConditionFalse, corev1.NodePIDPressure: corev1.ConditionFalse,
	} {
		if conditions[kind] != want {
			t.Errorf("condition %s is %q, want %s", kind, conditions[kind], want)
		}
	}
	addresses := map[corev1.NodeAddressType]string{}
	for _, a := range node.Status.Addresses {
		addresses[a.Type] = a.Address
	}
	if addresses[corev1.NodeInternalIP] == "" || addresses[corev1.NodeHostName] == "" {
		t.Errorf("addresses: %v", node.Status.Addresses)
	}
}

func TestNodeLease(t *testing.T) {
	leases := cluster.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease, err := leases.Get(t.Context(), cluster.node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node, err := cluster.client.CoreV1().Nodes().Get(t.Context(), cluster.node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(lease.OwnerReferences) != 1 || lease.OwnerReferences[0].UID != node.UID {
		t.Errorf("owner of the lease: %v, want node %s", lease.OwnerReferences, node.UID)
	}
	renewed := lease.Spec.RenewTime
	eventually(t, "the lease is renewed", func(ctx context.Context) (bool, error) {
		now, err := leases.Get(ctx, cluster.node, metav1.GetOptions{})
		return err == nil && !now.Spec.RenewTime.Equal(renewed), err
	})
}

func TestExtendedResourceIsKept(t *testing.T) {
	nodes := cluster.client.CoreV1().Nodes()
	const name = "example.com/e2e"
	node, err := nodes.Get(t.Context(), cluster.node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = nodes.Patch(t.Context(), cluster.node, "application/json-patch+json",
		[]byte(`[{"op": "add", "path": "/status/capacity/example.com~1e2e", "value": "3"}]`), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := nodes.Patch(ctx, node.Name, "application/json-patch+json",
			[]byte(`[{"op": "remove", "path": "/status/capacity/example.com~1e2e"}, {"op": "remove", "path": "/status/allocatable/example.com~1e2e"}]`), metav1.PatchOptions{}, "status")
		if err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the node offers the resource", func(ctx context.Context) (bool, error) {
		node, err := nodes.Get(ctx, cluster.node, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		q := node.Status.Allocatable[name]
		return q.Value() == 3, nil
	})
}
