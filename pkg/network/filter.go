package network

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// packetFilter holds the rules which are the same for all pods of a bridge.
type packetFilter interface {
	backend() string // as the CNI plugins call it
	ensure(ctx context.Context, b Bridge) error
	remove(ctx context.Context, b Bridge) error
}

// findFilter prefers iptables where it exists: Docker and firewalls of such a
// machine drop forwarded packets there, and only rules there can let pods pass.
func findFilter() packetFilter {
	if _, err := exec.LookPath("iptables"); err == nil {
		return iptables{}
	}
	if _, err := exec.LookPath("nft"); err == nil {
		return nft{}
	}
	return nil
}

type iptables struct{}

func (iptables) backend() string { return "iptables" }

// rule is one rule of the table and chain it belongs to.
type rule struct {
	table, chain string
	match        []string
}

func (r rule) args(verb string) []string {
	return append([]string{"-w", "-t", r.table, verb, r.chain}, r.match...)
}

// sharedRules masquerades what leaves the range, multicast excepted, and lets
// pods pass where the machine's policy is to drop.
func sharedRules(b Bridge) []rule {
	multicast := "224.0.0.0/4"
	if isIPv6(b.PodCIDR) {
		multicast = "ff00::/8"
	}
	chain := "NODEAGENT-" + strings.ToUpper(b.name())
	comment := []string{"-m", "comment", "--comment", "nodeagent pods on " + b.name()}
	with := func(match ...string) []string { return append(match, comment...) }
	return []rule{
		{"nat", chain, with("-d", b.PodCIDR, "-j", "RETURN")},
		{"nat", chain, with("-d", multicast, "-j", "RETURN")},
		{"nat", chain, with("-j", "MASQUERADE")},
		{"nat", "POSTROUTING", append(with("-s", b.PodCIDR), "-j", chain)},
		{"filter", "FORWARD", append(with("-s", b.PodCIDR), "-j", "ACCEPT")},
		{"filter", "FORWARD", append(with("-d", b.PodCIDR), "-j", "ACCEPT")},
	}
}

func isIPv6(cidr string) bool {
	prefix, err := netip.ParsePrefix(cidr)
	return err == nil && prefix.Addr().Is6()
}

func binary(b Bridge) string {
	if isIPv6(b.PodCIDR) {
		return "ip6tables"
	}
	return "iptables"
}

func (iptables) ensure(ctx context.Context, b Bridge) error {
	chain := map[string]bool{}
	for _, r := range sharedRules(b) {
		if strings.HasPrefix(r.chain, "NODEAGENT-") && !chain[r.chain] {
			chain[r.chain] = true
			// Fails if it exists; if it fails otherwise, the next rule says so.
			_, _ = run(ctx, "", binary(b), "-w", "-t", r.table, "-N", r.chain)
		}
		if _, err := run(ctx, "", binary(b), r.args("-C")...); err == nil {
			continue
		}
		if _, err := run(ctx, "", binary(b), r.args("-A")...); err != nil {
			return err
		}
	}
	return nil
}

func (iptables) remove(ctx context.Context, b Bridge) error {
	if b.PodCIDR != "" {
		for _, r := range sharedRules(b) {
			for {
				if _, err := run(ctx, "", binary(b), r.args("-D")...); err != nil {
					break // no such rule is left
				}
			}
			if r.chain == "POSTROUTING" {
				_, _ = run(ctx, "", binary(b), "-w", "-t", r.table, "-X", "NODEAGENT-"+strings.ToUpper(b.name()))
			}
		}
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		rules, err := run(ctx, "", tool, "-w", "-t", "nat", "-S")
		if err != nil {
			continue // no nat table in this kernel, so no chain in it
		}
		for _, args := range portmapCleanup(rules) {
			if _, err := run(ctx, "", tool, append([]string{"-w", "-t", "nat"}, args...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// portmapCleanup returns the commands which delete the chains that portmap made
// at its first use, none if a host port of anybody is still mapped.
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

// nft is for machines without iptables. Everything is in a table of our own,
// which goes in one piece; portmap has one more, shared by all CNI users.
type nft struct{}

func (nft) backend() string { return "nftables" }

func table(b Bridge) string {
	if isIPv6(b.PodCIDR) {
		return "ip6 nodeagent_" + b.name()
	}
	return "ip nodeagent_" + b.name()
}

func (nft) ensure(ctx context.Context, b Bridge) error {
	family, multicast := "ip", "224.0.0.0/4"
	if isIPv6(b.PodCIDR) {
		family, multicast = "ip6", "ff00::/8"
	}
	// One transaction; adding first makes the deletion valid on a fresh machine.
	script := fmt.Sprintf(`add table %[1]s
delete table %[1]s
table %[1]s {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		%[2]s saddr %[3]s %[2]s daddr != { %[3]s, %[4]s } masquerade
	}
}
`, table(b), family, b.PodCIDR, multicast)
	_, err := run(ctx, script, "nft", "-f", "-")
	return err
}

func (nft) remove(ctx context.Context, b Bridge) error {
	_, err := run(ctx, fmt.Sprintf("add table %[1]s\ndelete table %[1]s\n", table(b)), "nft", "-f", "-")
	if err != nil {
		return err
	}
	const portmap = "cni_hostport"
	rules, err := run(ctx, "", "nft", "list", "table", "inet", portmap)
	if err != nil || strings.Contains(rules, "dnat") {
		return nil // absent, or in use
	}
	_, err = run(ctx, "", "nft", "delete", "table", "inet", portmap)
	return err
}

// run returns what the command printed; its error has what it complained about.
func run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
