package node

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestPass(t *testing.T) {
	api := &nodes{}
	n := newTestNode(&leases{}, "me")
	n.Nodes = api
	pass := func(after time.Duration) {
		t.Helper()
		if err := n.pass(t.Context(), noon().Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	pass(0)
	if api.creates != 0 {
		t.Fatal("registered before it is known whether there is a Node")
	}
	if err := n.view.Replace(nil, "1"); err != nil {
		t.Fatal(err)
	}
	pass(time.Second)
	for i := 1; i < 30; i++ {
		pass(time.Duration(i) * 10 * time.Second)
	}
	if api.creates != 1 || api.status != 0 {
		t.Errorf("%d creates and %d status writes, want 1 and none: nothing has changed", api.creates, api.status)
	}
	pass(5*time.Minute + time.Second)
	if api.status != 1 {
		t.Errorf("%d status writes, want the one that is due", api.status)
	}
	if err := n.view.Delete(api.node); err != nil {
		t.Fatal(err)
	}
	pass(6 * time.Minute)
	if api.creates != 2 {
		t.Errorf("%d creates: a Node that was deleted is not registered again", api.creates)
	}
	n.NoRegister = true
	if err := n.view.Delete(api.node); err != nil {
		t.Fatal(err)
	}
	pass(7 * time.Minute)
	if api.creates != 2 {
		t.Error("registered although that is left to others")
	}
}

func TestViewKeepsTheNewest(t *testing.T) {
	v := view{changed: func() {}}
	at := func(version string) *corev1.Node {
		node := &corev1.Node{}
		node.UID, node.ResourceVersion = "u", version
		return node
	}
	v.set(at("10"))
	v.set(at("9")) // the watch is behind the answer to a patch
	if node, _ := v.get(); node.ResourceVersion != "10" {
		t.Errorf("went back to %s", node.ResourceVersion)
	}
}
