// Package server is the agent's HTTP interface: the kubelet's own routes
// (/pods, /containerLogs, /exec, /attach, /healthz) and, below /nodeagent/v1/,
// what the local client needs beyond them.
//
// It owns routing, parsing of requests and the mapping of errors to status
// codes. It knows nothing about containers: every handler is a func of [Funcs],
// and a func that is nil answers 501. It must never decide who may call it;
// on the unix socket that is the file mode's job (0600, root).
//
//	client ── unix socket ──► routes ──► Funcs ──► podsync, cri, qos
package server
