// Package network attaches pods to the machine's CNI network.
//
// It owns the CNI configuration directory's meaning (the first file in lexical
// order is the pod network), the arguments and capabilities a plugin receives,
// and a cache of results under its own CacheDir. It does not own namespaces:
// the caller creates, pins and removes them, and passes their path.
//
//	pod ──► request (pure) ──► prune (pure) ──► libcni ADD ──► addresses
//	            │ CNI_ARGS, portMappings, bandwidth, dns, cgroupPath
//
// Promises:
//
//   - Add either returns an attached pod or leaves nothing behind, as far as the
//     plugins can; `lo` is up before the first plugin runs.
//   - Del is idempotent and works without the namespace. It uses the
//     configuration of the time of Add, so that editing or removing the file in
//     between neither leaks an address nor blocks a pod's end.
//   - A plugin whose only purpose is a capability that the pod does not use
//     (portmap, bandwidth) is not executed: each is a process per pod.
//   - Ready never blocks and runs nothing: it is called before each pod start.
//
// It must never touch an interface, rule or file of another CNI user: results
// are cached apart from /var/lib/cni, and the generated bridge has its own name
// and address store.
package network
