package stats

import (
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/qos"
)

// metric is one that is told of a node, a pod or a container: what it is called
// and how it is read off.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newMetric(kind prometheus.ValueType, name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), kind}
}

// Resources is the collector behind /metrics/resource: what metrics-server reads.
func (r *Reader) Resources() prometheus.Collector {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	c, p := []string{"container", "namespace", "pod"}, []string{"namespace", "pod"}
	return &resources{
		sample:          r.Sample,
		nodeCPU:         newMetric(counter, "node_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the node in core-seconds"),
		nodeMemory:      newMetric(gauge, "node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes"),
		nodeSwap:        newMetric(gauge, "node_swap_usage_bytes", "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems"),
		podCPU:          newMetric(counter, "pod_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", p...),
		podMemory:       newMetric(gauge, "pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", p...),
		podSwap:         newMetric(gauge, "pod_swap_usage_bytes", "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems", p...),
		containerCPU:    newMetric(counter, "container_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the container in core-seconds", c...),
		containerMemory: newMetric(gauge, "container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes", c...),
		containerSwap:   newMetric(gauge, "container_swap_usage_bytes", "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems", c...),
		containerLimit:  newMetric(gauge, "container_swap_limit_bytes", "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems", c...),
		containerStart:  newMetric(gauge, "container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", c...),
		failed:          newMetric(gauge, "resource_scrape_error", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise"),
	}
}

type resources struct {
	sample                                                                       func() *Sample
	nodeCPU, nodeMemory, nodeSwap, podCPU, podMemory, podSwap                    metric
	containerCPU, containerMemory, containerSwap, containerLimit, containerStart metric
	failed                                                                       metric
}

// Describe implements prometheus.Collector. It describes nothing: to find out would
// be to read everything.
func (*resources) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (r *resources) Collect(ch chan<- prometheus.Metric) {
	s := r.sample()
	send := func(m metric, value float64, labels ...string) {
		ch <- prometheus.NewMetricWithTimestamp(s.Time, prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...))
	}
	node := &s.Node.Stat
	send(r.nodeCPU, seconds(node.CPU.Nanoseconds))
	send(r.nodeMemory, float64(node.Memory.WorkingSet))
	send(r.nodeSwap, float64(node.Memory.Swap))
	for _, p := range s.Pods {
		send(r.podCPU, seconds(p.Stat.CPU.Nanoseconds), p.Pod.Namespace, p.Pod.Name)
		send(r.podMemory, float64(p.Stat.Memory.WorkingSet), p.Pod.Namespace, p.Pod.Name)
		send(r.podSwap, float64(p.Stat.Memory.Swap), p.Pod.Namespace, p.Pod.Name)
		for i := range p.Containers {
			r.container(send, p.Pod, &p.Containers[i])
		}
	}
	failed := 0.0
	if node.Memory.Usage == 0 {
		failed = 1
	}
	ch <- prometheus.MustNewConstMetric(r.failed.desc, r.failed.kind, failed)
}

func (r *resources) container(send func(metric, float64, ...string), pod *corev1.Pod, c *Container) {
	labels := []string{c.Name, pod.Namespace, pod.Name}
	send(r.containerCPU, seconds(c.Stat.CPU.Nanoseconds), labels...)
	send(r.containerMemory, float64(c.Stat.Memory.WorkingSet), labels...)
	send(r.containerSwap, float64(c.Stat.Memory.Swap), labels...)
	if c.Stat.Memory.SwapLimit > 0 {
		send(r.containerLimit, float64(c.Stat.Memory.SwapLimit), labels...)
	}
	send(r.containerStart, float64(c.StartedAt.UnixNano())/1e9, labels...)
}

func seconds(nanoseconds uint64) float64 { return float64(nanoseconds) / 1e9 }

// Containers is the collector behind /metrics/cadvisor: of what cAdvisor tells,
// that which dashboards for Kubernetes ask for.
func (r *Reader) Containers() prometheus.Collector {
	labels := []string{"container", "id", "image", "name", "namespace", "pod"}
	read := func(kind prometheus.ValueType, name, help string, value func(*qos.Stat) float64) usageMetric {
		return usageMetric{newMetric(kind, name, help, labels...), value}
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	out := &containers{reader: r, usage: []usageMetric{
		read(counter, "container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", func(s *qos.Stat) float64 { return seconds(s.CPU.Nanoseconds) }),
		read(counter, "container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", func(s *qos.Stat) float64 { return float64(s.CPU.Periods) }),
		read(counter, "container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", func(s *qos.Stat) float64 { return float64(s.CPU.ThrottledPeriods) }),
		read(counter, "container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", func(s *qos.Stat) float64 { return seconds(s.CPU.ThrottledNanoseconds) }),
		read(gauge, "container_memory_usage_bytes", "Current memory usage in bytes.", func(s *qos.Stat) float64 { return float64(s.Memory.Usage) }),
		read(gauge, "container_memory_working_set_bytes", "Current working set in bytes.", func(s *qos.Stat) float64 { return float64(s.Memory.WorkingSet) }),
		read(gauge, "container_memory_rss", "Size of RSS in bytes.", func(s *qos.Stat) float64 { return float64(s.Memory.RSS) }),
		read(gauge, "container_memory_cache", "Number of bytes of page cache memory.", func(s *qos.Stat) float64 { return float64(s.Memory.Cache) }),
		read(gauge, "container_memory_swap", "Container swap usage in bytes.", func(s *qos.Stat) float64 { return float64(s.Memory.Swap) }),
		read(gauge, "container_spec_memory_limit_bytes", "Memory limit for the container.", func(s *qos.Stat) float64 { return float64(s.Memory.Limit) }),
		read(gauge, "container_threads", "Number of threads running inside the container.", func(s *qos.Stat) float64 { return float64(s.Tasks) }),
	}}
	for _, n := range []struct {
		name, help string
		value      func(*Network) uint64
	}{
		{"receive_bytes", "Cumulative count of bytes received", func(n *Network) uint64 { return n.RxBytes }},
		{"receive_packets", "Cumulative count of packets received", func(n *Network) uint64 { return n.RxPackets }},
		{"receive_packets_dropped", "Cumulative count of packets dropped while receiving", func(n *Network) uint64 { return n.RxDrop }},
		{"receive_errors", "Cumulative count of errors encountered while receiving", func(n *Network) uint64 { return n.RxErrs }},
		{"transmit_bytes", "Cumulative count of bytes transmitted", func(n *Network) uint64 { return n.TxBytes }},
		{"transmit_packets", "Cumulative count of packets transmitted", func(n *Network) uint64 { return n.TxPackets }},
		{"transmit_packets_dropped", "Cumulative count of packets dropped while transmitting", func(n *Network) uint64 { return n.TxDrop }},
		{"transmit_errors", "Cumulative count of errors encountered while transmitting", func(n *Network) uint64 { return n.TxErrs }},
	} {
		m := newMetric(counter, "container_network_"+n.name+"_total", n.help, append(labels, "interface")...)
		out.network = append(out.network, networkMetric{m, n.value})
	}
	return out
}

type usageMetric struct {
	metric
	value func(*qos.Stat) float64
}

type networkMetric struct {
	metric
	value func(*Network) uint64
}

type containers struct {
	reader  *Reader
	usage   []usageMetric
	network []networkMetric
}

// Describe implements prometheus.Collector, as that of resources.
func (*containers) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *containers) Collect(ch chan<- prometheus.Metric) {
	s := c.reader.Sample()
	all := func(stat *qos.Stat, labels ...string) {
		for _, m := range c.usage {
			ch <- prometheus.NewMetricWithTimestamp(s.Time, prometheus.MustNewConstMetric(m.desc, m.kind, m.value(stat), labels...))
		}
	}
	all(&s.Node.Stat, "", "/", "", "", "", "")
	for i := range s.Pods {
		p := &s.Pods[i]
		all(&p.Stat, "", p.Cgroup, "", "", p.Pod.Namespace, p.Pod.Name)
		for i := range p.Containers {
			k := &p.Containers[i]
			all(&k.Stat, k.Name, p.Cgroup+"/"+k.ID, k.Image, k.ID, p.Pod.Namespace, p.Pod.Name)
		}
		if p.Sandbox == nil || p.Sandbox.HostNetwork {
			continue
		}
		for _, n := range c.reader.networks(p) {
			for _, m := range c.network {
				ch <- prometheus.NewMetricWithTimestamp(s.Time, prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.value(&n)),
					"", p.Cgroup, "", "", p.Pod.Namespace, p.Pod.Name, n.Name))
			}
		}
	}
}
