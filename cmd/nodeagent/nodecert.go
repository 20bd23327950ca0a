package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	certificatesapi "k8s.io/api/certificates/v1"
	certificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/identity"
)

// certDir is where the node's certificates are kept.
func certDir(cfg config.Config) string {
	if cfg.Agent.CertDir != "" {
		return cfg.Agent.CertDir
	}
	return filepath.Join(cfg.Agent.RootDir, "pki")
}

// clientCertificate is what this node shows to the API server. The first one is
// had with the bootstrap credentials, the others with the one before.
func (c *cluster) clientCertificate(cfg config.Config, bootstrap *rest.Config, changed func(), log *slog.Logger) (*identity.Certificate, error) {
	store := identity.Store{Dir: certDir(cfg), Name: "kubelet-client"}
	initial, err := kubeconfigCertificate(c.config)
	if err != nil {
		if bootstrap == nil {
			return nil, err
		}
		log.Warn("certificate of the kubeconfig cannot be used; a new one is requested", "err", err)
	}
	if bootstrap == nil {
		bootstrap = c.config // a token, or what there was from the beginning
	}
	first, err := certificatesv1.NewForConfig(bootstrap)
	if err != nil {
		return nil, fmt.Errorf("credentials for the first certificate: %w", err)
	}
	finish := func() {
		if _, err := os.Stat(cfg.Agent.Kubeconfig); !errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err := identity.WriteKubeconfig(cfg.Agent.Kubeconfig, c.config, store.Current()); err != nil {
			log.Error("kubeconfig not written", "err", err)
			return
		}
		log.Info("kubeconfig written", "path", cfg.Agent.Kubeconfig)
	}
	client, err := identity.New(identity.Config{
		Store: store, Signer: certificatesapi.KubeAPIServerClientKubeletSignerName, Initial: initial,
		Template: func() *x509.CertificateRequest { return identity.NodeRequest(cfg.Agent.NodeName, nil, nil) },
		Requests: func(current *tls.Certificate) certificatesv1.CertificateSigningRequestInterface {
			if current == nil {
				return first.CertificateSigningRequests()
			}
			return c.certificates.CertificateSigningRequests()
		},
		Changed: func(before *tls.Certificate) {
			finish()
			if before != nil { // who waits for the first has no connection yet
				changed()
			}
		},
		Log: log,
	})
	if err == nil && client.Current() != nil {
		finish() // an agent before this one may have been killed before it could
	}
	return client, err
}

// kubeconfigCertificate is the one that a kubeconfig brings, or nil.
func kubeconfigCertificate(rc *rest.Config) (*tls.Certificate, error) {
	cert, key := rc.CertData, rc.KeyData
	var err error
	if rc.CertFile != "" {
		if cert, err = os.ReadFile(rc.CertFile); err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
	}
	if rc.KeyFile != "" {
		if key, err = os.ReadFile(rc.KeyFile); err != nil {
			return nil, fmt.Errorf("client key: %w", err)
		}
	}
	if len(cert) == 0 {
		return nil, nil
	}
	pair, err := identity.Parse(cert, key)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	return pair, nil
}

// signedServing is the certificate of this node's server, signed by the cluster.
func (a *agent) signedServing() (*identity.Certificate, error) {
	var initial *tls.Certificate
	if k := a.cfg.Kubelet; k.TLSCertFile != "" {
		var err error
		if initial, err = (&certificateFile{cert: k.TLSCertFile, key: k.TLSPrivateKeyFile}).get(nil); err != nil {
			return nil, err
		}
	}
	return identity.New(identity.Config{
		Initial: initial,
		Store:   identity.Store{Dir: certDir(a.cfg), Name: "kubelet-server"}, Signer: certificatesapi.KubeletServingSignerName,
		Template: func() *x509.CertificateRequest {
			var ips []net.IP
			for _, ip := range a.nodeIPs() {
				ips = append(ips, net.ParseIP(ip))
			}
			if len(ips) == 0 {
				return nil
			}
			return identity.NodeRequest(a.cfg.Agent.NodeName, []string{a.cfg.Agent.NodeName}, ips)
		},
		Requests: func(*tls.Certificate) certificatesv1.CertificateSigningRequestInterface {
			return a.cluster.certificates.CertificateSigningRequests()
		},
		Log: a.log,
	})
}
