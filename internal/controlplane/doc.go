// Package controlplane runs a real etcd, API server, controller manager and
// scheduler for tests and trials, all below one directory:
//
//	DIR/ca.crt, DIR/pki/            the authority, and what it has signed
//	DIR/admin.kubeconfig            cluster-admin
//	DIR/bootstrap.kubeconfig        a bootstrap token that may ask for a node's certificate
//	DIR/node-NAME.kubeconfig        user system:node:NAME, group system:nodes
//	DIR/audit.log                   what nodes asked the API server for
//	DIR/<program>.pid, <program>.log
//
// The processes outlive the one that starts them; everything that stops or
// restarts them finds them by that directory. A directory that was used before is
// taken up again with its certificates, ports and objects.
//
// It owns no network: what it listens on must be there.
package controlplane
