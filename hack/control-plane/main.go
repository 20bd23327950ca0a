// Command control-plane starts and stops a control plane for trials:
// hack/control-plane.sh is the way to call it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/internal/controlplane"
)

const usage = `usage: control-plane start DIR [flags] | stop DIR | node DIR NAME [DURATION]`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s", usage)
	}
	verb, dir, args := args[0], args[1], args[2:]
	if verb == "start" {
		return start(dir, args)
	}
	p, err := controlplane.Load(dir)
	if err != nil {
		return err
	}
	switch verb {
	case "stop":
		return p.Stop()
	case "node":
		return node(p, args)
	default:
		return fmt.Errorf("no verb called %s; %s", verb, usage)
	}
}

func start(dir string, args []string) error {
	var o controlplane.Options
	flags := flag.NewFlagSet("start", flag.ContinueOnError)
	flags.StringVar(&o.BinDir, "bin-dir", ".cache/peers", "where etcd and the programs of Kubernetes are")
	flags.StringVar(&o.BindAddress, "bind-address", "127.0.0.1", "what the API server listens on")
	flags.IntVar(&o.Port, "port", 0, "the API server's port; 0 is any that is free")
	flags.DurationVar(&o.SigningDuration, "signing-duration", 0, "life of certificates from CSRs; 0 is a year")
	flags.Func("host", "a further name or address of the API server's certificate; may be repeated", func(s string) error {
		o.Hosts = append(o.Hosts, s)
		return nil
	})
	flags.Func("apiserver-arg", "a further argument of the API server; may be repeated", func(s string) error {
		o.APIServerArgs = append(o.APIServerArgs, s)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	p, err := controlplane.Open(dir, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := p.Start(ctx); err != nil {
		return err
	}
	fmt.Println("export KUBECONFIG=" + p.AdminKubeconfig())
	return nil
}

// node writes a node's kubeconfig and prints where.
func node(p *controlplane.Plane, args []string) error {
	if len(args) == 0 || strings.ContainsRune(args[0], '/') {
		return fmt.Errorf("%s", usage)
	}
	var valid time.Duration
	if len(args) > 1 {
		var err error
		if valid, err = time.ParseDuration(args[1]); err != nil {
			return err
		}
	}
	path, err := p.Node(args[0], valid)
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
