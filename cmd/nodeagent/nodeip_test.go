package main

import (
	"net"
	"net/netip"
	"testing"
)

func TestPickIP(t *testing.T) {
	addrs := func(list ...string) []net.Addr {
		var out []net.Addr
		for _, s := range list {
			ip, n, err := net.ParseCIDR(s)
			if err != nil {
				t.Fatal(err)
			}
			n.IP = ip
			out = append(out, n)
		}
		return out
	}
	cases := map[string]struct {
		reason    string
		preferred string
		have      []net.Addr
		want      string
	}{
		"Preferred": {"the address that the default route speaks from", "192.0.2.7", addrs("198.51.100.1/24", "192.0.2.7/24"), "192.0.2.7"},
		"First":     {"without a route the first", "", addrs("127.0.0.1/8", "169.254.1.1/16", "198.51.100.1/24", "192.0.2.7/24"), "198.51.100.1"},
		"NotPods":   {"never the bridge of our own pods, which comes and goes", "10.88.0.1", addrs("10.88.0.1/16", "192.0.2.7/24"), "192.0.2.7"},
		"OtherKind": {"nor one of the other kind", "", addrs("2001:db8::7/64"), ""},
		"None":      {"a machine may have none", "", addrs("127.0.0.1/8", "10.88.0.1/16"), ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var preferred netip.Addr
			if tc.preferred != "" {
				preferred = netip.MustParseAddr(tc.preferred)
			}
			got := pickIP(preferred, tc.have, "10.88.0.0/16", netip.Addr.Is4)
			if want := tc.want; got.IsValid() && got.String() != want || !got.IsValid() && want != "" {
				t.Errorf("%s: want %q, got %v", tc.reason, want, got)
			}
		})
	}
}
