package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

const (
	// DefaultBridge is the host interface of the generated network.
	DefaultBridge = "nodeagent0"

	bridgeNetwork = "nodeagent"
)

// Bridge is the network of the embedded runtime: one Linux bridge, addresses of
// a local range, masqueraded towards the rest of the world.
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
	IPMasq           bool            `json:"ipMasq,omitempty"`
	IPMasqBackend    string          `json:"ipMasqBackend,omitempty"`
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

// WriteBridgeConflist writes the bridge's CNI configuration, unless the file
// already says the same.
func WriteBridgeConflist(path string, b Bridge) error {
	backend, err := b.check()
	if err != nil {
		return err
	}
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
// that the plugins shall use.
func (b Bridge) check() (backend string, err error) {
	prefix, err := netip.ParsePrefix(b.PodCIDR)
	switch {
	case err != nil:
		return "", fmt.Errorf("pod CIDR: %w", err)
	case prefix.Masked() != prefix:
		return "", fmt.Errorf("pod CIDR %s has host bits set: did you mean %s?", b.PodCIDR, prefix.Masked())
	case prefix.Addr().BitLen()-prefix.Bits() < 3:
		return "", fmt.Errorf("pod CIDR %s is too small for pods", b.PodCIDR)
	}
	var missing []string
	for _, p := range []string{"bridge", "host-local", "portmap"} {
		if !b.has(p) {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return "", &MissingPluginError{Plugins: missing, Dirs: b.BinDirs}
	}
	for _, tool := range []struct{ binary, backend string }{{"iptables", "iptables"}, {"nft", "nftables"}} {
		if _, err := exec.LookPath(tool.binary); err == nil {
			return tool.backend, nil
		}
	}
	return "", errors.New("the pod network needs iptables or nft for masquerading and host ports: install the package iptables or nftables")
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
				IPMasq:           true,
				IPMasqBackend:    backend,
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
// is detached: the interface, the address store, and the portmap plugin's empty
// chains. It is idempotent.
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
	for _, binary := range []string{"iptables", "ip6tables"} {
		errs = append(errs, removePortmapChains(ctx, binary))
	}
	return errors.Join(errs...)
}

// removePortmapChains deletes the chains which portmap makes at its first use
// and keeps. If another CNI user has host ports, they are not empty, and stay.
func removePortmapChains(ctx context.Context, binary string) error {
	if _, err := exec.LookPath(binary); err != nil {
		return nil
	}
	rules, err := exec.CommandContext(ctx, binary, "-w", "-t", "nat", "-S").Output()
	if err != nil {
		return nil // no nat table in this kernel, so no chain in it
	}
	for _, args := range portmapCleanup(string(rules)) {
		args = append([]string{"-w", "-t", "nat"}, args...)
		if out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", binary, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// portmapCleanup returns the commands which delete portmap's chains, none if a
// host port is still mapped.
func portmapCleanup(rules string) [][]string {
	const prefix = "CNI-HOSTPORT-"
	var jumps, flushes, deletes [][]string
	for line := range strings.Lines(rules) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case strings.HasPrefix(f[1], "CNI-DN-"):
			return nil
		case f[0] == "-N" && strings.HasPrefix(f[1], prefix):
			flushes = append(flushes, []string{"-F", f[1]})
			deletes = append(deletes, []string{"-X", f[1]})
		case f[0] == "-A" && !strings.HasPrefix(f[1], "CNI-") && strings.Contains(line, "-j "+prefix):
			jumps = append(jumps, append([]string{"-D"}, unquote(f[1:])...))
		}
	}
	return append(append(jumps, flushes...), deletes...)
}

// unquote joins the words of a quoted comment, as `iptables -S` prints it.
func unquote(fields []string) []string {
	var out []string
	open := false
	for _, f := range fields {
		starts := !open && strings.HasPrefix(f, `"`)
		ends := (open || starts) && strings.HasSuffix(f, `"`)
		text := strings.Trim(f, `"`)
		if open {
			out[len(out)-1] += " " + text
		} else {
			out = append(out, text)
		}
		open = (open || starts) && !ends
	}
	return out
}
