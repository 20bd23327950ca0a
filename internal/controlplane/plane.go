package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/internal/daemon"
)

// Options are what a control plane is made from.
type Options struct {
	BinDir string // where the programs are
	// BindAddress is what the API server listens on; empty is 127.0.0.1. With
	// 0.0.0.0 the kubeconfigs name 127.0.0.1.
	BindAddress string
	Port        int // of the API server; 0 is any that is free
	// Hosts are further names and addresses of the API server's certificate.
	Hosts []string
	// SigningDuration is how long the certificates live that are asked for by CSR;
	// 0 is the controller manager's default.
	SigningDuration time.Duration
	// APIServerArgs are added to the API server's command line.
	APIServerArgs []string
}

// Plane is one control plane.
type Plane struct {
	dir   string
	procs daemon.Set
	opts  Options
	ports ports
	ca    *authority
}

type ports struct {
	APIServer, Etcd, EtcdPeer, ControllerManager, Scheduler int
}

// saved is the file that a restart, and whoever stops the programs, reads.
type saved struct {
	Options Options
	Ports   ports
}

const savedFile = "plane.json"

// Load takes up the control plane that was prepared in dir.
func Load(dir string) (*Plane, error) {
	data, err := os.ReadFile(filepath.Join(dir, savedFile))
	if err != nil {
		return nil, err
	}
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, savedFile), err)
	}
	return Open(dir, s.Options)
}

// Open prepares a control plane in dir, with the ports and certificates of the
// one that was there before; nothing runs yet.
func Open(dir string, opts Options) (*Plane, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if opts.BinDir, err = filepath.Abs(opts.BinDir); err != nil {
		return nil, err
	}
	if opts.BindAddress == "" {
		opts.BindAddress = "127.0.0.1"
	}
	p := &Plane{dir: dir, procs: daemon.Set{Dir: dir}, opts: opts}
	if p.ca, err = openAuthority(p.file("pki")); err != nil {
		return nil, fmt.Errorf("certificates of %s: %w", dir, err)
	}
	return p, p.choosePorts()
}

func (p *Plane) file(name string) string { return filepath.Join(p.dir, name) }

// choosePorts takes the ports used before, or free ones, and keeps them.
func (p *Plane) choosePorts() error {
	var s saved
	data, err := os.ReadFile(p.file(savedFile))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", p.file(savedFile), err)
	}
	s.Options = p.opts
	if p.opts.Port != 0 {
		s.Ports.APIServer = p.opts.Port
	}
	for _, port := range []*int{&s.Ports.APIServer, &s.Ports.Etcd, &s.Ports.EtcdPeer, &s.Ports.ControllerManager, &s.Ports.Scheduler} {
		if *port != 0 {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // only after all are chosen, or one would be chosen twice
		*port = l.Addr().(*net.TCPAddr).Port
	}
	p.ports = s.Ports
	if data, err = json.Marshal(s); err != nil {
		return err
	}
	return os.WriteFile(p.file(savedFile), data, 0o644)
}

// spawn starts one of the programs in BinDir.
func (p *Plane) spawn(program string, args ...string) error {
	if err := p.procs.Spawn(program, filepath.Join(p.opts.BinDir, program), args...); err != nil {
		return fmt.Errorf("%w; hack/build-peers.sh %s builds it", err, program)
	}
	return nil
}

// Start runs everything and returns when it can be used.
func (p *Plane) Start(ctx context.Context) error {
	if err := p.files(); err != nil {
		return err
	}
	if err := p.spawn("etcd", p.etcdArgs()...); err != nil {
		return err
	}
	if err := p.StartAPIServer(ctx); err != nil {
		return err
	}
	if err := p.provide(ctx); err != nil {
		return err
	}
	if err := p.spawn("kube-controller-manager", p.controllerManagerArgs()...); err != nil {
		return err
	}
	if err := p.spawn("kube-scheduler", p.schedulerArgs()...); err != nil {
		return err
	}
	return p.awaitControllers(ctx)
}

// Stop ends everything. The directory stays.
func (p *Plane) Stop() error {
	return errors.Join(
		p.procs.End("kube-scheduler", 10*time.Second),
		p.procs.End("kube-controller-manager", 10*time.Second),
		p.StopAPIServer(),
		p.procs.End("etcd", 10*time.Second),
	)
}

// StartAPIServer runs the API server with a new serving certificate, and returns
// when it is ready.
func (p *Plane) StartAPIServer(ctx context.Context) error {
	serving, err := p.ca.serving(append(p.opts.Hosts, p.host(), "127.0.0.1", "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local", serviceIP)...)
	if err != nil {
		return err
	}
	if err := p.ca.write("apiserver", serving); err != nil {
		return err
	}
	if err := p.spawn("kube-apiserver", p.apiServerArgs()...); err != nil {
		return err
	}
	return p.await(ctx, "the API server", []string{"etcd", "kube-apiserver"}, p.ready)
}

// StopAPIServer ends the API server alone. Watches would hold it up.
func (p *Plane) StopAPIServer() error { return p.procs.End("kube-apiserver", 3*time.Second) }

// host is the address that clients are told.
func (p *Plane) host() string {
	if ip := net.ParseIP(p.opts.BindAddress); ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return p.opts.BindAddress
}

// URL is the API server's.
func (p *Plane) URL() string { return fmt.Sprintf("https://%s:%d", p.host(), p.ports.APIServer) }

// CA is the file with the certificate of who signs everything.
func (p *Plane) CA() string { return p.file("ca.crt") }

// AuditLog is the file that holds what nodes asked for.
func (p *Plane) AuditLog() string { return p.file("audit.log") }

// AdminKubeconfig is the file for those who may do everything.
func (p *Plane) AdminKubeconfig() string { return p.file("admin.kubeconfig") }

// BootstrapKubeconfig is the file for a node that has no certificate yet.
func (p *Plane) BootstrapKubeconfig() string { return p.file("bootstrap.kubeconfig") }

// NodeKubeconfig is the file that Node writes for a node.
func (p *Plane) NodeKubeconfig(name string) string { return p.file("node-" + name + ".kubeconfig") }

// await polls until check is content; it ends early when one of programs does.
func (p *Plane) await(ctx context.Context, what string, programs []string, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		for _, program := range programs {
			if died := p.procs.Died(program); died != nil {
				return died
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
