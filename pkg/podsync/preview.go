package podsync

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// Preview is what the runtime would be told of a container, as far as that can be
// known without running anything. It does not fill in cgroup and image.
type Preview struct {
	Lookups Lookups
	Volumes map[string]Mounted
	// SubPath is the place of a path inside a volume.
	SubPath        func(pod *corev1.Pod, container string, mountIndex int) string
	ClusterDomain  string
	SeccompDefault bool
}

// Container previews one container, and says what its hostname would be.
func (p Preview) Container(pod *corev1.Pod, c *corev1.Container) (cfg cri.ContainerConfig, name string, err error) {
	if name, _, err = hostname(pod, p.ClusterDomain); err != nil {
		return cfg, "", err
	}
	vars, _, err := env(context.Background(), pod, c, p.Lookups)
	if err != nil {
		return cfg, "", err
	}
	place := func(_ context.Context, pod *corev1.Pod, container string, i int, _, _ string) (string, error) {
		return p.SubPath(pod, container, i), nil
	}
	mounts, err := mountsOf(context.Background(), pod, c, p.Volumes, vars, place)
	if err != nil {
		return cfg, "", err
	}
	return cri.ContainerConfig{
		Pod: pod, Container: c, Command: expandAll(c.Command, vars.lookup), Args: expandAll(c.Args, vars.lookup), Env: vars.list(),
		Mounts: mounts, SeccompDefault: p.SeccompDefault,
	}, name, nil
}
