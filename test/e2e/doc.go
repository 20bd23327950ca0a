// Package e2e tests a node as the users of its cluster see it, through the API
// server and kubectl alone: nothing here knows how the node was made, or that its
// agent is not a kubelet. It needs
//
//	KUBECONFIG  a cluster, with rights for everything
//	NODE_NAME   the node to test, which has the demo image (`make demo-image`)
//
// and takes, if set,
//
//	KUBECTL    the kubectl to test with; default: .cache/peers/kubectl, else that in PATH
//	E2E_IMAGE  another name of the demo image
//	AUDIT_LOG  the API server's audit log, which is then searched for what a node
//	           may not ask for
//
// `make e2e` runs it on a cluster that it makes; by hand:
//
//	go test -tags e2e ./test/e2e
//
// Every test has a namespace of its own and runs beside the others; one that
// disturbs the node as a whole runs alone. None restarts the agent or the control
// plane: the suite has to run against any cluster.
package e2e
