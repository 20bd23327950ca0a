// Package server is the agent's HTTP interface: the kubelet's own routes
// (/pods, /containerLogs, /exec, /attach, /portForward, /metrics, /healthz, …)
// and, below /nodeagent/v1/, what the local client needs beyond them.
//
// It owns routing, parsing of requests, the mapping of errors to status codes,
// and who of the cluster may ask for what. It knows nothing about containers:
// every handler is a func of [Funcs], and a func that is nil answers 501.
//
//	local client ── unix socket ─────────────────────► routes ──► Funcs ──► podsync, cri, qos, stats
//	API server ──── TLS, door, whose is it, may it ──►
//
// On the unix socket, [Server], the file mode (0600, root) decides who may call.
// On the network, [API], it is the API server: a certificate of the cluster's CA
// or a token says who calls, and every request needs the access that the matched
// route asks for. Nothing is served there to somebody unknown, nobody is ever
// sent elsewhere, and what cannot be decided is refused.
package server
