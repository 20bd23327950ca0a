package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nodeagent/nodeagent/pkg/server"
	"github.com/nodeagent/nodeagent/pkg/stats"
)

// measure adds what the node uses and how the agent does. All of it is read when
// it is asked for.
func (a *agent) measure(f *server.Funcs, certificate certificateSource) error {
	pods, err := a.tree.Kubepods()
	if err != nil {
		return err
	}
	system := map[string]string{"pods": pods}
	if own := ownCgroup("/proc/self/cgroup"); own != "" {
		system["kubelet"] = own // the name that tools know
	}
	reader := stats.New(stats.Config{
		NodeName: a.cfg.Agent.NodeName, ProcRoot: "/proc", Cgroup: a.tree.Stat, Processes: a.tree.Processes, System: system,
		Pods: a.board.List, PodCgroup: a.podCgroup, Observed: a.runtime.Pod, Layer: a.runtime.Layer, Images: a.imageUsage, RootDir: a.cfg.Agent.RootDir,
	})
	f.Summary = func(ctx context.Context, onlyCPUAndMemory bool) (any, error) {
		return reader.Summary(ctx, onlyCPUAndMemory)
	}
	for to, collectors := range map[*http.Handler][]prometheus.Collector{
		&f.Metrics:          a.ownMetrics(certificate),
		&f.ResourceMetrics:  {reader.Resources()},
		&f.ContainerMetrics: {reader.Containers()},
		&f.ProbeMetrics:     {&probeMetrics{counts: a.probes.Counts}},
	} {
		registry := prometheus.NewPedanticRegistry()
		for _, c := range collectors {
			if err := registry.Register(c); err != nil {
				return fmt.Errorf("register metrics: %w", err)
			}
		}
		*to = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	}
	return nil
}

// ownCgroup is that of this process, or empty when it has none of its own.
func ownCgroup(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[1] == "memory" || parts[0] == "0" && parts[1] == "" && !strings.Contains(string(data), ":memory:")) && parts[2] != "/" {
			return parts[2]
		}
	}
	return ""
}

// imageUsage is where images are and what they take.
func (a *agent) imageUsage(ctx context.Context) (dir string, bytes uint64, err error) {
	if dir, err = a.images.Dir(ctx); err != nil {
		return "", 0, err
	}
	images, err := a.imagesByID(ctx)
	for _, i := range images {
		bytes += uint64(max(i.Size, 0))
	}
	return dir, bytes, err
}
