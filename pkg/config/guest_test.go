package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const guestFile = agent + "profile: guest\ncapacity: {cpu: \"2\", memory: 25%}\n"

func TestGuestProfile(t *testing.T) {
	got, err := Parse([]byte(guestFile + "logDir: /logs\n---\n" + kubelet + "maxPods: 12\n"))
	if err != nil {
		t.Fatal(err)
	}
	if errs := got.Validate(); len(errs) > 0 {
		t.Errorf("problems: %v", errs)
	}
	want := DefaultOf(ProfileGuest)
	want.Agent.Capacity = map[string]string{"cpu": "2", "memory": "25%"}
	want.Agent.LogDir, want.Kubelet.MaxPods = "/logs", 12
	if diff := cmp.Diff(want, got, withoutLines()); diff != "" {
		t.Errorf("what the file says holds over what the profile changes, -want +got:\n%s", diff)
	}
	// Whatever a kubelet with its defaults on the same machine owns, a guest has another.
	g, d := DefaultOf(ProfileGuest), Default()
	for field, pair := range map[string][2]any{
		"staticPodPath": {g.Kubelet.StaticPodPath, d.Kubelet.StaticPodPath}, "cgroupRoot": {g.Kubelet.CgroupRoot, d.Kubelet.CgroupRoot},
		"logDir": {g.Agent.LogDir, d.Agent.LogDir}, "containerLogDir": {g.Agent.ContainerLogDir, d.Agent.ContainerLogDir},
		"port": {g.Kubelet.Port, int32(10250)}, "healthzPort": {*g.Kubelet.HealthzPort, int32(10248)},
	} {
		if pair[0] == pair[1] {
			t.Errorf("%s of a guest is the kubelet's, %v", field, pair[0])
		}
	}
}

func TestValidateGuest(t *testing.T) {
	cases := map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"Profile":    {func(c *Config) { c.Agent.Profile = "host" }, `profile: "host" is not one of standalone, node, guest`},
		"Standalone": {func(c *Config) { c.Agent.Profile, c.Agent.Kubeconfig = ProfileStandalone, "/k" }, `kubeconfig: "/k" makes a node`},
		"NoMemory":   {func(c *Config) { delete(c.Agent.Capacity, "memory") }, "capacity.memory: must be set"},
		"NoCPU":      {func(c *Config) { c.Agent.Capacity["cpu"] = "" }, "capacity.cpu: "},
		"Percent":    {func(c *Config) { c.Agent.Capacity["cpu"] = "120%" }, `capacity.cpu: "120%" is not above 0%`},
		"Nothing":    {func(c *Config) { c.Agent.Capacity["memory"] = "0" }, `capacity.memory: "0" is neither`},
		"Resource":   {func(c *Config) { c.Agent.Capacity["gpu"] = "1" }, `capacity: "gpu" is not one of`},
		"Runtime":    {func(c *Config) { c.Agent.Runtime = RuntimeEmbedded }, `runtime: "embedded" is not possible`},
		"CgroupRoot": {func(c *Config) { c.Kubelet.CgroupRoot = "/" }, `cgroupRoot: "/" is the kubelet's`},
		"LogDir":     {func(c *Config) { c.Agent.LogDir = "/var/log/pods" }, `logDir: "/var/log/pods" is the kubelet's`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c, err := Parse([]byte(guestFile))
			if err != nil {
				t.Fatal(err)
			}
			tc.spoil(&c)
			if err := errors.Join(c.Validate()...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
