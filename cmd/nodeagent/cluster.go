package main

import (
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	certificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// cluster is the API server that this node belongs to. A standalone agent has none.
type cluster struct {
	config         *rest.Config // as the node; copy it before changing it
	core           corev1client.CoreV1Interface
	coordination   coordinationv1.CoordinationV1Interface
	authentication authenticationv1.AuthenticationV1Interface
	authorization  authorizationv1.AuthorizationV1Interface
	certificates   certificatesv1.CertificatesV1Interface
}

// joinCluster makes clients for the kubeconfig's API server, nil without one. It
// does not speak to the server: pods of this machine start also while it is away.
func joinCluster(cfg config.Config) (*cluster, error) {
	if cfg.Agent.Kubeconfig == "" {
		return nil, nil
	}
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Agent.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", cfg.Agent.Kubeconfig, err)
	}
	rc.UserAgent = "nodeagent/" + version
	rc.QPS, rc.Burst = 50, 100
	rc.ContentType, rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", cfg.Agent.Kubeconfig, err)
	}
	return newCluster(rc, client)
}

func newCluster(rc *rest.Config, client *http.Client) (*cluster, error) {
	c := &cluster{config: rc}
	var err error
	if c.core, err = corev1client.NewForConfigAndClient(rc, client); err != nil {
		return nil, err
	}
	if c.coordination, err = coordinationv1.NewForConfigAndClient(rc, client); err != nil {
		return nil, err
	}
	if c.authentication, err = authenticationv1.NewForConfigAndClient(rc, client); err != nil {
		return nil, err
	}
	if c.authorization, err = authorizationv1.NewForConfigAndClient(rc, client); err != nil {
		return nil, err
	}
	if c.certificates, err = certificatesv1.NewForConfigAndClient(rc, client); err != nil {
		return nil, err
	}
	return c, nil
}
