package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// runFlags override the configuration file.
type runFlags struct {
	config         string
	runtime        string
	staticPodPath  string
	runtimeDir     string
	runtimeBinDirs []string
	cniBinDirs     []string
	cniConfDir     string
	imageDir       string
	rootDir        string
	stateDir       string
	hostname       string
	endpoint       string
	kubeconfig     string
	nodeIPs        []string
	bootstrap      string
	certDir        string
	nodeLabels     map[string]string
	taints         []string
	show           bool
	verbosity      int

	credentialConfig, credentialBinDir string
}

func (f *runFlags) add(c *cobra.Command) {
	fl := c.Flags()
	d := config.Default()
	// The flags themselves have no default, for the file's values to hold.
	or := func(usage string, values ...string) string {
		return fmt.Sprintf("%s (default %s)", usage, strings.Join(values, ","))
	}
	fl.StringVar(&f.config, "config", "", "configuration file: KubeletConfiguration, and NodeAgentConfiguration as a second document")
	fl.StringVar(&f.runtime, "runtime", "", or("auto, embedded or external", d.Agent.Runtime))
	fl.StringVar(&f.staticPodPath, "static-pod-path", "", or("directory of manifests", d.Kubelet.StaticPodPath))
	fl.StringVar(&f.runtimeDir, "runtime-dir", "", or("directory of the embedded containerd", d.Agent.RuntimeDir))
	fl.StringSliceVar(&f.runtimeBinDirs, "runtime-bin-dir", nil, or("where containerd, its shim and runc are, before PATH is searched", d.Agent.RuntimeBinDirs...))
	fl.StringSliceVar(&f.cniBinDirs, "cni-bin-dir", nil, or("where CNI plugins are", d.Agent.CNIBinDirs...))
	fl.StringVar(&f.cniConfDir, "cni-conf-dir", "", or("where CNI networks are configured", d.Agent.CNIConfDir))
	fl.StringVar(&f.imageDir, "image-dir", "", or("directory of image archives to import", d.Agent.ImageDir))
	fl.StringVar(&f.rootDir, "root-dir", "", or("where pods' files are kept", d.Agent.RootDir))
	fl.StringVar(&f.stateDir, "state-dir", "", or("where files are kept until the next boot, and the socket", d.Agent.StateDir))
	fl.StringVar(&f.hostname, "hostname-override", "", "name of this node (default: the hostname)")
	fl.StringVar(&f.endpoint, "container-runtime-endpoint", "", or("socket of an external containerd", d.Agent.ContainerdAddress))
	fl.StringSliceVar(&f.nodeIPs, "node-ip", nil, "address of this node, or one of each family (default: those of its interfaces)")
	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the API server; without it only the pods of --static-pod-path run")
	fl.StringVar(&f.bootstrap, "bootstrap-kubeconfig", "", "how to get a first certificate for this node, for which --kubeconfig is written then")
	fl.StringVar(&f.certDir, "cert-dir", "", "where this node's certificates are kept (default: pki in --root-dir)")
	fl.StringToStringVar(&f.nodeLabels, "node-labels", nil, "labels of this node in the API server")
	fl.StringSliceVar(&f.taints, "register-with-taints", nil, "taints that this node is registered with: KEY[=VALUE]:EFFECT")
	fl.StringVar(&f.credentialConfig, "image-credential-provider-config", "", "CredentialProviderConfig, or a directory of them: programs that know credentials for images")
	fl.StringVar(&f.credentialBinDir, "image-credential-provider-bin-dir", "", "where the programs of --image-credential-provider-config are")
	fl.IntVarP(&f.verbosity, "v", "v", 0, "4 or more: debug messages")
}

// load reads the configuration and lets the flags have their say.
func (f *runFlags) load() (config.Config, error) {
	cfg, err := loadConfig(f.config)
	if err != nil {
		return cfg, err
	}
	a := &cfg.Agent
	if len(f.nodeIPs) > 0 {
		a.NodeIPs = f.nodeIPs
	}
	if len(f.nodeLabels) > 0 {
		a.NodeLabels = f.nodeLabels
	}
	if len(f.taints) > 0 {
		if cfg.Kubelet.RegisterWithTaints, err = parseTaints(f.taints); err != nil {
			return cfg, err
		}
	}
	override := func(dst *string, value string) {
		if value != "" {
			*dst = value
		}
	}
	if cfg.Kubelet.ContainerRuntimeEndpoint != "" {
		a.ContainerdAddress = strings.TrimPrefix(cfg.Kubelet.ContainerRuntimeEndpoint, "unix://")
	}
	override(&a.Runtime, f.runtime)
	override(&cfg.Kubelet.StaticPodPath, f.staticPodPath)
	override(&a.RuntimeDir, f.runtimeDir)
	override(&a.CNIConfDir, f.cniConfDir)
	override(&a.ImageDir, f.imageDir)
	override(&a.RootDir, f.rootDir)
	override(&a.StateDir, f.stateDir)
	override(&a.NodeName, f.hostname)
	override(&a.Kubeconfig, f.kubeconfig)
	override(&a.ImageCredentialProviderConfig, f.credentialConfig)
	override(&a.ImageCredentialProviderBinDir, f.credentialBinDir)
	override(&a.BootstrapKubeconfig, f.bootstrap)
	override(&a.CertDir, f.certDir)
	override(&a.ContainerdAddress, strings.TrimPrefix(f.endpoint, "unix://"))
	if len(f.runtimeBinDirs) > 0 {
		a.RuntimeBinDirs = f.runtimeBinDirs
	}
	if len(f.cniBinDirs) > 0 {
		a.CNIBinDirs = f.cniBinDirs
	}
	// What a user types is relative to where the user is.
	for _, path := range append([]*string{&a.Kubeconfig, &a.BootstrapKubeconfig, &a.CertDir, &a.ImageCredentialProviderConfig, &a.ImageCredentialProviderBinDir, &cfg.Kubelet.StaticPodPath, &a.RuntimeDir, &a.ImageDir, &a.RootDir, &a.StateDir, &a.CNIConfDir},
		pointers(a.RuntimeBinDirs, a.CNIBinDirs)...) {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return cfg, err
		}
	}
	if a.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return cfg, fmt.Errorf("name of this node: %w", err)
		}
		a.NodeName = strings.ToLower(strings.TrimSpace(name))
		if a.Profile == config.ProfileGuest {
			a.NodeName += config.GuestSuffix
		}
	}
	nameHost(&cfg)
	if errs := cfg.Validate(); len(errs) > 0 {
		return cfg, invalid(f.config, errs)
	}
	return cfg, nil
}

// parseTaints reads taints as kubectl writes them.
func parseTaints(list []string) ([]corev1.Taint, error) {
	var out []corev1.Taint
	for _, text := range list {
		rest, effect, has := strings.Cut(text, ":")
		if !has {
			return nil, fmt.Errorf("--register-with-taints %q: want KEY[=VALUE]:EFFECT", text)
		}
		key, value, _ := strings.Cut(rest, "=")
		out = append(out, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return out, nil
}

// invalid says what is wrong with a file, or without one with the flags.
func invalid(file string, errs []error) error {
	if file == "" {
		return fmt.Errorf("configuration: %w", errors.Join(errs...))
	}
	return fmt.Errorf("configuration %s:\n%w", file, errors.Join(errs...))
}

func pointers(lists ...[]string) []*string {
	var out []*string
	for _, l := range lists {
		for i := range l {
			out = append(out, &l[i])
		}
	}
	return out
}

// loadConfig reads a file, or gives the defaults when there is none to read.
func loadConfig(path string) (config.Config, error) {
	if path == "" {
		return config.Default(), nil
	}
	return config.Load(path)
}
