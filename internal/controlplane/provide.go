package controlplane

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// bootstrapID and bootstrapSecret are the token of a cluster that nobody else reaches.
const (
	bootstrapID     = "abcdef"
	bootstrapSecret = "0123456789abcdef"
)

// auditPolicy keeps what nodes ask for, and the answers' codes.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:nodes", "system:bootstrappers"]
- level: None
`

// files writes what the programs read.
func (p *Plane) files() error {
	if err := os.WriteFile(p.file("audit-policy.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return err
	}
	ca, err := os.ReadFile(p.ca.path("ca.crt"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.file("ca.crt"), ca, 0o644); err != nil {
		return err
	}
	kubelets, err := p.ca.client("kube-apiserver-kubelet-client", nil, life)
	if err != nil {
		return err
	}
	if err := p.ca.write("kubelet-client", kubelets); err != nil {
		return err
	}
	for name, who := range map[string]struct {
		user   string
		groups []string
	}{
		"admin":              {"admin", []string{"system:masters"}},
		"controller-manager": {"system:kube-controller-manager", nil},
		"scheduler":          {"system:kube-scheduler", nil},
	} {
		if _, err := p.kubeconfig(name, who.user, who.groups, life); err != nil {
			return err
		}
	}
	return p.writeKubeconfig(p.BootstrapKubeconfig(), &clientcmdapi.AuthInfo{Token: bootstrapID + "." + bootstrapSecret})
}

// Node writes a kubeconfig with a certificate of a node, valid for life, and
// returns its file; 0 is a year.
func (p *Plane) Node(name string, valid time.Duration) (string, error) {
	if valid == 0 {
		valid = life
	}
	return p.kubeconfig("node-"+name, "system:node:"+name, []string{"system:nodes"}, valid)
}

// Client writes a kubeconfig with a client certificate, and returns its file.
func (p *Plane) Client(name, user string, groups ...string) (string, error) {
	return p.kubeconfig(name, user, groups, life)
}

func (p *Plane) kubeconfig(name, user string, groups []string, valid time.Duration) (string, error) {
	c, err := p.ca.client(user, groups, valid)
	if err != nil {
		return "", err
	}
	path := p.file(name + ".kubeconfig")
	return path, p.writeKubeconfig(path, &clientcmdapi.AuthInfo{ClientCertificateData: c.cert, ClientKeyData: c.key})
}

func (p *Plane) writeKubeconfig(path string, who *clientcmdapi.AuthInfo) error {
	ca, err := os.ReadFile(p.ca.path("ca.crt"))
	if err != nil {
		return err
	}
	const name = "test"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: p.URL(), CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: who},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
}

// Admin is a client that may do everything.
func (p *Plane) Admin() (*kubernetes.Clientset, error) {
	rc, err := clientcmd.BuildConfigFromFlags("", p.AdminKubeconfig())
	if err != nil {
		return nil, err
	}
	rc.QPS, rc.Burst = 200, 400
	return kubernetes.NewForConfig(rc)
}

func (p *Plane) ready(ctx context.Context) error {
	c, err := p.Admin()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// provide makes the objects that kubeadm would: who may join, and what the API
// server may ask of nodes.
func (p *Plane) provide(ctx context.Context) error {
	c, err := p.Admin()
	if err != nil {
		return err
	}
	for _, b := range []struct{ name, role, kind, subject string }{
		{"apiserver-kubelet-client", "system:kubelet-api-admin", rbacv1.UserKind, "kube-apiserver-kubelet-client"},
		{"bootstrappers-ask", "system:node-bootstrapper", rbacv1.GroupKind, "system:bootstrappers"},
		{"bootstrappers-approved", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", rbacv1.GroupKind, "system:bootstrappers"},
		{"nodes-renew", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", rbacv1.GroupKind, "system:nodes"},
	} {
		_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "test:" + b.name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: b.kind, Name: b.subject}},
		}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("bind role %s: %w", b.role, err)
		}
	}
	_, err = c.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + bootstrapID},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": bootstrapID, "token-secret": bootstrapSecret, "usage-bootstrap-authentication": "true",
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the bootstrap token: %w", err)
	}
	return nil
}

// awaitControllers waits for the programs' health, and for the first work of the
// controllers: without the default service account no pod is accepted.
func (p *Plane) awaitControllers(ctx context.Context) error {
	admin, err := p.Admin()
	if err != nil {
		return err
	}
	return p.await(ctx, "the controllers", []string{"kube-controller-manager", "kube-scheduler"}, func(ctx context.Context) error {
		for _, port := range []int{p.ports.ControllerManager, p.ports.Scheduler} {
			if err := healthy(ctx, port); err != nil {
				return err
			}
		}
		if _, err := admin.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := admin.CoreV1().ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
}

// healthy asks a program that serves with a certificate of its own making.
func healthy(ctx context.Context, port int) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/healthz", port), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("port %d is not healthy: %s", port, body)
	}
	return nil
}
