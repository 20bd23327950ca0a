package controlplane

import (
	"fmt"
	"net"
)

// serviceIP is the first of the service range, which the API server gives itself.
const serviceIP = "10.96.0.1"

func (p *Plane) etcdArgs() []string {
	clients := fmt.Sprintf("http://127.0.0.1:%d", p.ports.Etcd)
	peers := fmt.Sprintf("http://127.0.0.1:%d", p.ports.EtcdPeer)
	return []string{
		"--data-dir=" + p.file("etcd"), "--name=etcd",
		"--listen-client-urls=" + clients, "--advertise-client-urls=" + clients,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers, "--initial-cluster=etcd=" + peers,
		"--unsafe-no-fsync", "--log-level=warn",
	}
}

func (p *Plane) apiServerArgs() []string {
	pki := p.ca.path
	args := []string{
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", p.ports.Etcd),
		"--bind-address=" + p.opts.BindAddress, fmt.Sprintf("--secure-port=%d", p.ports.APIServer),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"), "--enable-bootstrap-token-auth",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki("sa.key"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--kubelet-client-certificate=" + pki("kubelet-client.crt"), "--kubelet-client-key=" + pki("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file=" + p.file("audit-policy.yaml"), "--audit-log-path=" + p.AuditLog(),
	}
	// An Endpoints object can hold no loopback address.
	if ip := net.ParseIP(p.opts.BindAddress); ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		args = append(args, "--endpoint-reconciler-type=none", "--advertise-address="+p.host())
	}
	return append(args, p.opts.APIServerArgs...)
}

func (p *Plane) controllerManagerArgs() []string {
	pki := p.ca.path
	args := []string{
		"--kubeconfig=" + p.file("controller-manager.kubeconfig"),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", p.ports.ControllerManager), "--cert-dir=" + p.file("pki/controller-manager"),
		"--leader-elect=false", "--use-service-account-credentials",
		"--root-ca-file=" + pki("ca.crt"), "--service-account-private-key-file=" + pki("sa.key"),
		"--cluster-signing-cert-file=" + pki("ca.crt"), "--cluster-signing-key-file=" + pki("ca.key"),
	}
	if p.opts.SigningDuration > 0 {
		args = append(args, "--cluster-signing-duration="+p.opts.SigningDuration.String())
	}
	return args
}

func (p *Plane) schedulerArgs() []string {
	return []string{
		"--kubeconfig=" + p.file("scheduler.kubeconfig"), "--leader-elect=false",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", p.ports.Scheduler), "--cert-dir=" + p.file("pki/scheduler"),
	}
}
