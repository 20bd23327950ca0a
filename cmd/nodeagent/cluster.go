package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	certificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/identity"
)

// cluster is the API server that this node belongs to. A standalone agent has none.
type cluster struct {
	config         *rest.Config // as the node; copy it before changing it
	core           corev1client.CoreV1Interface
	coordination   coordinationv1.CoordinationV1Interface // on a connection of its own: nothing must hold up the lease
	authentication authenticationv1.AuthenticationV1Interface
	authorization  authorizationv1.AuthorizationV1Interface
	certificates   certificatesv1.CertificatesV1Interface
	requests       *requestMetrics

	// client is the node's certificate, nil when the kubeconfig brings its own
	// credentials and nobody asked for them to be renewed.
	client *identity.Certificate
}

// joinCluster makes clients for the kubeconfig's API server, nil without one. It
// does not speak to the server: pods of this machine start also while it is away,
// or before it knows this machine.
func joinCluster(cfg config.Config, log *slog.Logger) (*cluster, error) {
	if cfg.Agent.Kubeconfig == "" {
		return nil, nil
	}
	rc, bootstrap, err := apiServer(cfg, log)
	if err != nil {
		return nil, err
	}
	c := &cluster{config: rc, requests: newRequestMetrics()} // before there is a request
	connections := &identity.Client{}
	if bootstrap != nil || cfg.Kubelet.RotateCertificates {
		if c.client, err = c.clientCertificate(cfg, bootstrap, connections.Reconnect, log); err != nil {
			return nil, err
		}
		connections.Certificate = c.client
	}
	return c, c.connect(connections)
}

// apiServer is how to reach it as the node, and how to get to be the node: nil
// where that is not asked for.
func apiServer(cfg config.Config, log *slog.Logger) (rc, bootstrap *rest.Config, err error) {
	if path := cfg.Agent.BootstrapKubeconfig; path != "" {
		if bootstrap, err = loadKubeconfig(path); err != nil {
			return nil, nil, err
		}
	}
	_, err = os.Stat(cfg.Agent.Kubeconfig)
	switch {
	case err == nil:
		rc, err = loadKubeconfig(cfg.Agent.Kubeconfig)
		if err != nil && bootstrap != nil { // the certificate that it names may be gone
			log.Warn("kubeconfig cannot be used; the bootstrap kubeconfig takes its place", "err", err)
			rc, err = anonymous(bootstrap), nil
		}
	case bootstrap != nil:
		rc, err = anonymous(bootstrap), nil
	default:
		err = fmt.Errorf("kubeconfig: %w", err)
	}
	return rc, bootstrap, err
}

func loadKubeconfig(path string) (*rest.Config, error) {
	rc, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return tuned(rc), nil
}

// anonymous is the same server without the bootstrap credentials.
func anonymous(rc *rest.Config) *rest.Config {
	ca, caFile, proxy := rc.CAData, rc.CAFile, rc.Proxy
	rc = rest.AnonymousClientConfig(rc)
	rc.CAData, rc.CAFile, rc.Proxy = ca, caFile, proxy
	return tuned(rc)
}

func tuned(rc *rest.Config) *rest.Config {
	rc.UserAgent = "nodeagent/" + version
	rc.QPS, rc.Burst = 50, 100
	rc.ContentType, rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	return rc
}

// connect makes the clients.
func (c *cluster) connect(connections *identity.Client) error {
	client, err := connections.HTTP(c.config)
	if err != nil {
		return err
	}
	if c.core, err = corev1client.NewForConfigAndClient(c.config, client); err != nil {
		return err
	}
	if c.authentication, err = authenticationv1.NewForConfigAndClient(c.config, client); err != nil {
		return err
	}
	if c.authorization, err = authorizationv1.NewForConfigAndClient(c.config, client); err != nil {
		return err
	}
	if c.certificates, err = certificatesv1.NewForConfigAndClient(c.config, client); err != nil {
		return err
	}
	own := rest.CopyConfig(c.config)
	own.QPS = -1 // it asks a few times a minute
	var leases *http.Client
	if leases, err = connections.HTTP(own); err != nil {
		return err
	}
	c.coordination, err = coordinationv1.NewForConfigAndClient(own, leases)
	return err
}

// Run keeps the node's certificate until ctx ends.
func (c *cluster) Run(ctx context.Context) error {
	if c.client == nil {
		return nil
	}
	return c.client.Run(ctx)
}
