//go:build integration

package network

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
)

// outside makes a host at 192.0.2.2 which has no route to any pod, so that it
// can answer masqueraded packets only.
func outside(t *testing.T) ns.NetNS {
	t.Helper()
	out := newNS(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	up := func(name, address string) {
		t.Helper()
		link, err := netlink.LinkByName(name)
		must(err)
		addr, err := netlink.ParseAddr(address)
		must(err)
		must(netlink.AddrAdd(link, addr))
		must(netlink.LinkSetUp(link))
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near0"}, PeerName: "far0"}))
	t.Cleanup(func() {
		if link, err := netlink.LinkByName("near0"); err == nil {
			netlink.LinkDel(link) //nolint:errcheck // gone with its namespace
		}
	})
	far, err := netlink.LinkByName("far0")
	must(err)
	must(netlink.LinkSetNsFd(far, int(out.Fd())))
	up("near0", "192.0.2.1/24")
	must(out.Do(func(ns.NetNS) error { up("far0", "192.0.2.2/24"); return nil }))
	return out
}

func TestMasquerade(t *testing.T) {
	for name, filter := range map[string]packetFilter{"iptables": iptables{}, "nft": nft{}} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, "natest6", "10.207.0.0/24")
			for _, f := range []packetFilter{iptables{}, nft{}} {
				if err := f.remove(t.Context(), m.bridge); err != nil {
					t.Fatal(err)
				}
			}
			out, n := outside(t), newNS(t)
			serve(t, out, "192.0.2.2:80", "outside")
			m.attach(t, "box", n, pod("a"))
			for range 2 { // an agent that starts again finds its rules
				if err := filter.ensure(t.Context(), m.bridge); err != nil {
					t.Fatal(err)
				}
			}
			if name == "iptables" {
				if got := strings.Count(natRules(t), "10.207.0.0/24"); got != 4 {
					t.Errorf("every rule once: %d\n%s", got, natRules(t))
				}
				if err := exec.Command("iptables", "-w", "-P", "FORWARD", "DROP").Run(); err != nil {
					t.Fatal(err)
				}
				defer exec.Command("iptables", "-w", "-P", "FORWARD", "ACCEPT").Run() //nolint:errcheck // own namespace
			}
			if err := n.Do(func(ns.NetNS) error { _, err := ask("192.0.2.2:80"); return err }); err != nil {
				t.Errorf("a pod reaches the world, also where Docker drops what is forwarded: %v", err)
			}
			if err := m.Del(t.Context(), "box", n.Path(), pod("a")); err != nil {
				t.Fatal(err)
			}
			if err := filter.remove(t.Context(), m.bridge); err != nil {
				t.Fatal(err)
			}
		})
	}
}
