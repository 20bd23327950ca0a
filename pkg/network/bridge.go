package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

const (
	// DefaultBridge is the host interface of the generated network.
	DefaultBridge = "nodeagent0"

	bridgeNetwork = "nodeagent"
)

// Bridge is the network of the embedded runtime: one Linux bridge, addresses of
// a local range, masqueraded towards the rest of the world.
//
// The masquerade is one rule for the range, made here, and not the bridge
// plugin's ipMasq: that is a chain and several iptables runs for every pod, each
// slower the more pods there are, and its DEL leaves the chain behind when the
// namespace is already gone, which then blocks the next pod of the same address.
type Bridge struct {
	Name    string   // host interface, DefaultBridge if empty
	PodCIDR string   // the pods' range; the bridge gets its first address
	BinDirs []string // where the plugins are; optional ones are used if present
	DataDir string   // who has which address; may vanish with a reboot
}

type conflist struct {
	CNIVersion string   `json:"cniVersion"`
	Name       string   `json:"name"`
	Plugins    []plugin `json:"plugins"`
}

type plugin struct {
	Type             string          `json:"type"`
	Bridge           string          `json:"bridge,omitempty"`
	IsDefaultGateway bool            `json:"isDefaultGateway,omitempty"`
	HairpinMode      bool            `json:"hairpinMode,omitempty"`
	IPAM             *ipam           `json:"ipam,omitempty"`
	Backend          string          `json:"backend,omitempty"`
	Capabilities     map[string]bool `json:"capabilities,omitempty"`
}

type ipam struct {
	Type    string                `json:"type"`
	DataDir string                `json:"dataDir,omitempty"`
	Ranges  [][]map[string]string `json:"ranges"`
}

// EnsureBridge writes the bridge's CNI configuration to the file, unless it
// already says the same, and the packet filter rules which all its pods share.
// The interface itself appears with the first pod.
func EnsureBridge(ctx context.Context, path string, b Bridge) error {
	filter, err := b.check()
	if err != nil {
		return err
	}
	if err := filter.ensure(ctx, b); err != nil {
		return err
	}
	return b.write(path, filter.backend())
}

func (b Bridge) write(path, backend string) error {
	data, err := json.MarshalIndent(b.conflist(backend), "", "  ")
	if err != nil {
		return fmt.Errorf("encode bridge network: %w", err)
	}
	data = append(data, '\n')
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	if err := ensureDir(filepath.Dir(path)); err != nil {
		return err
	}
	// The suffix is none that a CNI runtime reads, so that a half written file
	// is never a network.
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil { //nolint:gosec // other CNI tools may read it
		return fmt.Errorf("write bridge network: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write bridge network: %w", err)
	}
	return nil
}

// check finds what the bridge cannot do without, and returns the packet filter
// to use.
func (b Bridge) check() (packetFilter, error) {
	prefix, err := netip.ParsePrefix(b.PodCIDR)
	switch {
	case err != nil:
		return nil, fmt.Errorf("pod CIDR: %w", err)
	case prefix.Masked() != prefix:
		return nil, fmt.Errorf("pod CIDR %s has host bits set: did you mean %s?", b.PodCIDR, prefix.Masked())
	case prefix.Addr().BitLen()-prefix.Bits() < 3:
		return nil, fmt.Errorf("pod CIDR %s is too small for pods", b.PodCIDR)
	}
	var missing []string
	for _, p := range []string{"bridge", "host-local", "portmap"} {
		if !b.has(p) {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return nil, &MissingPluginError{Plugins: missing, Dirs: b.BinDirs}
	}
	if f := findFilter(); f != nil {
		return f, nil
	}
	return nil, errors.New("the pod network needs iptables or nft for masquerading and host ports: install the package iptables or nftables")
}

func (b Bridge) has(plugin string) bool {
	for _, dir := range b.BinDirs {
		if info, err := os.Stat(filepath.Join(dir, plugin)); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

func (b Bridge) conflist(backend string) conflist {
	list := conflist{
		CNIVersion: "1.0.0",
		Name:       bridgeNetwork,
		Plugins: []plugin{
			{
				Type:             "bridge",
				Bridge:           b.name(),
				IsDefaultGateway: true,
				HairpinMode:      true, // a pod reaches itself through its own host port
				IPAM: &ipam{
					Type:    "host-local",
					DataDir: b.DataDir,
					Ranges:  [][]map[string]string{{{"subnet": b.PodCIDR}}},
				},
			},
			{Type: "portmap", Backend: backend, Capabilities: map[string]bool{capPortMappings: true}},
		},
	}
	if b.has("bandwidth") {
		list.Plugins = append(list.Plugins,
			plugin{Type: "bandwidth", Capabilities: map[string]bool{capBandwidth: true}})
	}
	return list
}

func (b Bridge) name() string {
	if b.Name == "" {
		return DefaultBridge
	}
	return b.Name
}

// RemoveBridge removes what the network leaves on the machine once the last pod
// is detached: the interface, the shared rules, the address store and the
// portmap plugin's empty chains. It is idempotent.
func RemoveBridge(ctx context.Context, b Bridge) error {
	var errs []error
	link, err := netlink.LinkByName(b.name())
	switch {
	case err == nil:
		errs = append(errs, netlink.LinkDel(link))
	case !errors.As(err, &netlink.LinkNotFoundError{}):
		errs = append(errs, fmt.Errorf("find bridge %s: %w", b.name(), err))
	}
	if b.DataDir != "" {
		errs = append(errs, os.RemoveAll(b.DataDir))
	}
	if f := findFilter(); f != nil {
		errs = append(errs, f.remove(ctx, b))
	}
	return errors.Join(errs...)
}
