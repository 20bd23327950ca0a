package identity

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// WriteKubeconfig writes how to reach the API server of rc with the certificate in
// a file, for this agent when it is started again and for whoever acts as the node.
func WriteKubeconfig(path string, rc *rest.Config, certificate string) error {
	const name = "default"
	ca := rc.CAData
	if rc.CAFile != "" {
		ca = nil // the file may be replaced
	}
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: rc.Host, TLSServerName: rc.ServerName, InsecureSkipTLSVerify: rc.Insecure,
			CertificateAuthority: rc.CAFile, CertificateAuthorityData: ca,
		}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificate: certificate, ClientKey: certificate}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return WriteFile(path, data, 0o600)
}
