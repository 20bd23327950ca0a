package network

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBridgeConflist(t *testing.T) {
	cfg := dirs(t, "bridge", "host-local", "portmap", "bandwidth")
	b := Bridge{PodCIDR: "10.88.0.0/16", BinDirs: cfg.BinDirs, DataDir: "/run/x"}
	got, err := json.Marshal(b.conflist("iptables"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"1.0.0","name":"nodeagent","plugins":[` +
		`{"type":"bridge","bridge":"nodeagent0","isDefaultGateway":true,"hairpinMode":true,` +
		`"ipam":{"type":"host-local","dataDir":"/run/x","ranges":[[{"subnet":"10.88.0.0/16"}]]}},` +
		`{"type":"portmap","backend":"iptables","capabilities":{"portMappings":true}},` +
		`{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBadBridge(t *testing.T) {
	cases := map[string]struct {
		reason   string
		bridge   Bridge
		plugins  []string
		wantText string
	}{
		"NoPlugins":  {reason: "what is missing is named", bridge: Bridge{PodCIDR: "10.0.0.0/16"}, wantText: "bridge, host-local, portmap not found"},
		"NoCIDR":     {reason: "a word is no range", bridge: Bridge{PodCIDR: "pods"}, plugins: []string{"bridge"}, wantText: "pod CIDR"},
		"HostBits":   {reason: "the likely meaning is offered", bridge: Bridge{PodCIDR: "10.1.2.3/16"}, plugins: []string{"bridge"}, wantText: "did you mean 10.1.0.0/16"},
		"OneAddress": {reason: "bridge, broadcast and no pod", bridge: Bridge{PodCIDR: "10.1.2.4/30"}, plugins: []string{"bridge"}, wantText: "too small"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := dirs(t, tc.plugins...)
			tc.bridge.BinDirs = cfg.BinDirs
			file := filepath.Join(cfg.ConfDir, "10-nodeagent.conflist")
			err := EnsureBridge(t.Context(), file, tc.bridge)
			if err == nil || !strings.Contains(err.Error(), tc.wantText) {
				t.Errorf("%s: got %v, want %q", tc.reason, err, tc.wantText)
			}
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: a bad network must not be written: %v", tc.reason, err)
			}
		})
	}
}

func TestPortmapCleanup(t *testing.T) {
	const chains = `-P PREROUTING ACCEPT
-N CNI-HOSTPORT-DNAT
-N CNI-HOSTPORT-MASQ
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
`
	cases := map[string]struct {
		reason, rules string
		want          [][]string
	}{
		"Empty": {
			reason: "nothing of ours, nothing to do",
			rules:  "-P PREROUTING ACCEPT\n-A POSTROUTING -j MASQUERADE\n",
		},
		"Unused": {
			reason: "jumps go first, then the chains; rules of others stay",
			rules:  chains,
			want: [][]string{
				{"-D", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "CNI-HOSTPORT-DNAT"},
				{"-D", "POSTROUTING", "-m", "comment", "--comment", "CNI portfwd requiring masquerade", "-j", "CNI-HOSTPORT-MASQ"},
				{"-F", "CNI-HOSTPORT-DNAT"},
				{"-F", "CNI-HOSTPORT-MASQ"},
				{"-X", "CNI-HOSTPORT-DNAT"},
				{"-X", "CNI-HOSTPORT-MASQ"},
			},
		},
		"InUse": {
			reason: "somebody's host port still needs the chains",
			rules:  chains + "-N CNI-DN-0123456789\n",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, portmapCleanup(tc.rules)); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
