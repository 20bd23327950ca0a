package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// serviceAccountDir is where a pod finds its ServiceAccount's token.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// nameHost labels a guest with the node of its machine.
func nameHost(cfg *config.Config) {
	if !isGuest(*cfg) {
		return
	}
	if cfg.Agent.NodeLabels == nil {
		cfg.Agent.NodeLabels = map[string]string{}
	}
	if _, set := cfg.Agent.NodeLabels[config.HostKey]; !set {
		cfg.Agent.NodeLabels[config.HostKey] = cfg.Agent.Host()
	}
}

// joinAsServiceAccount makes the ServiceAccount of a guest's pod its bootstrap
// credentials, unless the configuration names others. They serve to ask for the
// node's certificate, and for nothing else. The token is named, not copied: it is
// replaced now and then.
func joinAsServiceAccount(cfg *config.Config, dir string) error {
	server := os.Getenv("KUBERNETES_SERVICE_HOST")
	if !isGuest(*cfg) || cfg.Agent.BootstrapKubeconfig != "" || server == "" {
		return nil
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not in a pod
	}
	if err != nil {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	path := filepath.Join(cfg.Agent.StateDir, "bootstrap.kubeconfig")
	const name = "bootstrap"
	err = clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server:                   "https://" + net.JoinHostPort(server, os.Getenv("KUBERNETES_SERVICE_PORT")),
			CertificateAuthorityData: authority,
		}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {TokenFile: filepath.Join(dir, "token")}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	cfg.Agent.BootstrapKubeconfig = path
	return nil
}
