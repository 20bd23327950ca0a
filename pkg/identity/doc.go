// Package identity gets and keeps the certificates that say who this node is.
//
// It owns the certificate directory, with the kubelet's file names, and the
// certificate signing requests that it has made. There are two certificates: the
// one that the node shows to the API server, and the one that the node's own
// server shows to the API server when that calls. Each is renewed before it ends,
// and whoever uses it always has the newest.
//
//	store ──► current ──► when? (pure) ──► key + request ──► signed ──► store
//	             │                              │ waits for approval, without a limit
//	             ▼                              ▼
//	     TLS handshakes                    API server: as the node, or, without a
//	                                       certificate, by the bootstrap token
//
// Promises:
//
//   - A key never leaves this machine, and its file can be read by root alone.
//   - A crash at any moment leaves the certificate that was there, or the new one.
//   - A certificate that has run out is still shown: it is for the other side to
//     judge, whose clock may be right.
//   - Only one request is open for each certificate; a pending one costs nothing
//     but an open watch.
package identity
