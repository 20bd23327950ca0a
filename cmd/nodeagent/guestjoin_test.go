package main

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodeagent/nodeagent/pkg/config"
)

func TestGuestJoinsAsItsServiceAccount(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "secret", "ca.crt": "authority"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	cases := map[string]struct {
		reason string
		change func(*config.Config)
		dir    string
		want   string // server
	}{
		"Guest":    {"the pod's own account", func(*config.Config) {}, dir, "https://[fd00::1]:443"},
		"Node":     {"a node that runs in a pod by chance", func(c *config.Config) { c.Agent.Profile = config.ProfileNode }, dir, ""},
		"NotInPod": {"started by hand", func(*config.Config) {}, filepath.Join(dir, "none"), ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := config.DefaultOf(config.ProfileGuest)
			cfg.Agent.StateDir = t.TempDir()
			tc.change(&cfg)
			if err := joinAsServiceAccount(&cfg, tc.dir); err != nil {
				t.Fatal(err)
			}
			path := cfg.Agent.BootstrapKubeconfig
			if tc.want == "" {
				if path != "" {
					t.Errorf("%s: bootstraps with %s", tc.reason, path)
				}
				return
			}
			rc, err := clientcmd.BuildConfigFromFlags("", path)
			if err != nil {
				t.Fatal(err)
			}
			if rc.Host != tc.want || rc.BearerTokenFile != filepath.Join(dir, "token") || string(rc.CAData) != "authority" {
				t.Errorf("%s: %s with %s trusting %q", tc.reason, rc.Host, rc.BearerTokenFile, rc.CAData)
			}
		})
	}
}

func TestGuestNamesItsHost(t *testing.T) {
	cfg := config.DefaultOf(config.ProfileGuest)
	cfg.Agent.NodeName = "m1-nodeagent"
	nameHost(&cfg)
	if got := cfg.Agent.NodeLabels; got[config.HostKey] != "m1" || got[config.GuestKey] != "true" {
		t.Errorf("labels are %v", got)
	}
}
