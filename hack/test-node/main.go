// Command test-node starts and removes a cluster of one node for tests and trials:
// hack/test-node.sh is the way to call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/internal/controlplane"
	"github.com/nodeagent/nodeagent/internal/testnode"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "test-node:", err)
		os.Exit(1)
	}
}

type options struct {
	dir, name, ip string
	images        string
	kubelet       bool
	extra         string
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: test-node up|down DIR [flags]")
	}
	o := options{dir: args[1]}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.StringVar(&o.name, "name", "e2e-node", "name of the node")
	flags.StringVar(&o.ip, "ip", "127.0.0.1", "address of the node and the API server")
	flags.StringVar(&o.images, "images", "", "directory of image archives (default .cache/images)")
	flags.BoolVar(&o.kubelet, "kubelet", false, "run a kubelet instead of the agent")
	flags.StringVar(&o.extra, "config", "", "lines for the agent's KubeletConfiguration")
	if err := flags.Parse(args[2:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	switch args[0] {
	case "up":
		return up(ctx, o)
	case "down":
		return down(ctx, o)
	default:
		return fmt.Errorf("no verb called %s", args[0])
	}
}

func (o options) plane() string { return filepath.Join(o.dir, "plane") }

func (o options) node(p *controlplane.Plane) (*testnode.Node, error) {
	repo, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	// A directory of the same name, for the cgroup root is called like it.
	return testnode.New(testnode.Options{
		Dir: filepath.Join(o.dir, filepath.Base(o.dir)), Repo: repo, Images: o.images, Name: o.name, IP: o.ip, RealKubelet: o.kubelet, Kubelet: o.extra,
		Kubeconfig: p.NodeKubeconfig(o.name), ClientCA: p.CA(),
	})
}

func up(ctx context.Context, o options) error {
	p, err := controlplane.Open(o.plane(), controlplane.Options{BinDir: ".cache/peers", BindAddress: o.ip})
	if err != nil {
		return err
	}
	if err := p.Start(ctx); err != nil {
		return err
	}
	if _, err := p.Node(o.name, 0); err != nil {
		return err
	}
	n, err := o.node(p)
	if err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s NODE_NAME=%s AUDIT_LOG=%s\n", p.AdminKubeconfig(), o.name, p.AuditLog())
	return nil
}

func down(ctx context.Context, o options) error {
	p, err := controlplane.Load(o.plane())
	if err != nil {
		return err
	}
	n, err := o.node(p)
	if err != nil {
		return errors.Join(err, p.Stop())
	}
	return errors.Join(n.Remove(ctx), p.Stop())
}
