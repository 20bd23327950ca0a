package main

import (
	"net"
	"net/netip"
)

// nodeIPs are the addresses by which others reach this machine, IPv4 first and
// at most one of each kind: those it would speak from, or else the first it has.
// The pods' own network is none of them: the machine gets its address there with
// the first pod.
func nodeIPs(podCIDR string) []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		addrs = nil
	}
	var ips []string
	for _, ip := range []netip.Addr{
		pickIP(source("udp4", "192.0.2.1:9"), addrs, podCIDR, netip.Addr.Is4),
		pickIP(source("udp6", "[2001:db8::1]:9"), addrs, podCIDR, netip.Addr.Is6),
	} {
		if ip.IsValid() {
			ips = append(ips, ip.String())
		}
	}
	return ips
}

// source is the address from which the kernel would send to another one, where
// it knows a way. Nothing is sent.
func source(network, to string) netip.Addr {
	conn, err := net.Dial(network, to)
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	from, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr()
}

// pickIP chooses the preferred address, if it will do, or the first that does.
func pickIP(preferred netip.Addr, addrs []net.Addr, podCIDR string, kind func(netip.Addr) bool) netip.Addr {
	pods, err := netip.ParsePrefix(podCIDR)
	will := func(ip netip.Addr) bool {
		return kind(ip) && ip.IsGlobalUnicast() && (err != nil || !pods.Contains(ip))
	}
	if will(preferred) {
		return preferred
	}
	for _, addr := range addrs {
		if n, err := netip.ParsePrefix(addr.String()); err == nil && will(n.Addr()) {
			return n.Addr()
		}
	}
	return netip.Addr{}
}
