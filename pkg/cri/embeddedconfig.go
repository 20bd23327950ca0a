package cri

import (
	"fmt"
	"path/filepath"
	"strings"
)

// maxShimSocketDir is the longest path that containerd accepts for the shims'
// sockets.
const maxShimSocketDir = 42

// unwantedPlugins are what a node without a CRI has no use for. Some of them have
// a price: the restart monitor looks at every container each 10 s, the cgroup
// monitor watches what the shims watch too, opt makes /opt/containerd.
func unwantedPlugins() []string {
	return []string{
		"io.containerd.cri.v1.images",
		"io.containerd.cri.v1.runtime",
		"io.containerd.grpc.v1.cri",
		"io.containerd.podsandbox.controller.v1.podsandbox",
		"io.containerd.nri.v1.nri",
		"io.containerd.monitor.container.v1.restart",
		"io.containerd.monitor.task.v1.cgroups",
		"io.containerd.internal.v1.opt",
		"io.containerd.internal.v1.tracing",
		"io.containerd.tracing.processor.v1.otlp",
		"io.containerd.ttrpc.v1.otelttrpc",
		"io.containerd.metrics.v1.grpc-prometheus",
		"io.containerd.metrics.v1.grpc-otel",
		"io.containerd.http.v1.pprof",
		"io.containerd.server.v1.debug",
		"io.containerd.server.v1.metrics",
		"io.containerd.server.v1.grpc-tcp",
		"io.containerd.snapshotter.v1.blockfile",
		"io.containerd.snapshotter.v1.btrfs",
		"io.containerd.snapshotter.v1.devmapper",
		"io.containerd.snapshotter.v1.erofs",
		"io.containerd.snapshotter.v1.zfs",
		"io.containerd.differ.v1.erofs",
		"io.containerd.mount-handler.v1.erofs",
	}
}

// config renders containerd's configuration, its version 4. Empty imports keep the
// machine's conf.d out.
func (e *Embedded) config() string {
	level := e.LogLevel
	if level == "" {
		level = "info"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by nodeagent at each start; changes are lost.\nversion = 4\nimports = []\n")
	fmt.Fprintf(&b, "root = %s\nstate = %s\n", tomlString(filepath.Join(e.Dir, "root")), tomlString(e.state()))
	b.WriteString("disabled_plugins = [\n")
	for _, p := range unwantedPlugins() {
		fmt.Fprintf(&b, "  %s,\n", tomlString(p))
	}
	fmt.Fprintf(&b, "]\n\n[debug]\nlevel = %s\n", tomlString(level))
	set := func(plugin, key, value string) {
		fmt.Fprintf(&b, "\n[plugins.%s]\n%s = %s\n", tomlString(plugin), key, tomlString(value))
	}
	set("io.containerd.server.v1.grpc", "address", e.Address())
	set("io.containerd.server.v1.ttrpc", "address", e.ttrpcAddress())
	if dir := filepath.Join(e.state(), "s"); len(dir) <= maxShimSocketDir {
		set("io.containerd.shim.v1.manager", "socket_dir", dir)
	}
	return b.String()
}

// tomlString quotes a string for TOML, whose escapes are not quite Go's.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
