package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/metrics"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/probe"
)

// ownMetrics are those of /metrics: the kubelet's names where tools know them.
func (a *agent) ownMetrics(certificate certificateSource) []prometheus.Collector {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	one := func() float64 { return 1 }
	return []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("nodeagent_build_info", "The version of the agent.", prometheus.Labels{"version": version}, one),
		gauge("kubelet_node_name", "The node's name. The count is always 1.", prometheus.Labels{"node": a.cfg.Agent.NodeName}, one),
		gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox", nil, func() float64 {
			n := 0
			for _, p := range a.runtime.Pods() {
				if p.Sandbox != nil && p.Sandbox.Ready {
					n++
				}
			}
			return float64(n)
		}),
		gauge("kubelet_desired_pods", "The number of pods the kubelet is being instructed to run.", nil, func() float64 { return float64(len(a.desired.Pods())) }),
		gauge("kubelet_certificate_manager_server_ttl_seconds", "Shortest TTL of the serving certificate in seconds; negative: it has expired.", nil,
			func() float64 { return secondsLeft(certificate, time.Now()) }),
		&runningContainers{pods: a.runtime.Pods},
		a.cluster.requests,
	}
}

// secondsLeft is how long the serving certificate is still good.
func secondsLeft(certificate certificateSource, now time.Time) float64 {
	c, err := certificate(&tls.ClientHelloInfo{})
	if err != nil || c == nil || len(c.Certificate) == 0 {
		return 0
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return 0
	}
	return leaf.NotAfter.Sub(now).Seconds()
}

// runningContainers counts containers by their state.
type runningContainers struct{ pods func() []cri.Pod }

func (*runningContainers) desc() *prometheus.Desc {
	return prometheus.NewDesc("kubelet_running_containers", "Number of currently running containers", []string{"container_state"}, nil)
}

// Describe implements prometheus.Collector.
func (r *runningContainers) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc() }

// Collect implements prometheus.Collector.
func (r *runningContainers) Collect(ch chan<- prometheus.Metric) {
	counts := map[string]int{}
	for _, p := range r.pods() {
		for _, c := range p.Containers {
			counts[strings.ToLower(c.State.String())]++
		}
	}
	for state, n := range counts {
		ch <- prometheus.MustNewConstMetric(r.desc(), prometheus.GaugeValue, float64(n), state)
	}
}

// requestMetrics are of the requests to the API server. client-go has one place
// for the whole process to tell of them.
type requestMetrics struct {
	results *prometheus.CounterVec
	latency *prometheus.HistogramVec
}

func newRequestMetrics() *requestMetrics {
	m := &requestMetrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rest_client_requests_total", Help: "Number of HTTP requests, partitioned by status code, method, and host.",
		}, []string{"code", "method", "host"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rest_client_request_duration_seconds", Help: "Request latency in seconds. Broken down by verb, and host.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60},
		}, []string{"verb", "host"}),
	}
	metrics.Register(metrics.RegisterOpts{RequestResult: m, RequestLatency: m})
	return m
}

// Increment implements metrics.ResultMetric.
func (m *requestMetrics) Increment(_ context.Context, code, method, host string) {
	m.results.WithLabelValues(code, method, host).Inc()
}

// Observe implements metrics.LatencyMetric.
func (m *requestMetrics) Observe(_ context.Context, verb string, u url.URL, latency time.Duration) {
	m.latency.WithLabelValues(verb, u.Host).Observe(latency.Seconds())
}

// Describe implements prometheus.Collector.
func (m *requestMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.results.Describe(ch)
	m.latency.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *requestMetrics) Collect(ch chan<- prometheus.Metric) {
	m.results.Collect(ch)
	m.latency.Collect(ch)
}

// probeMetrics counts what probes were answered.
type probeMetrics struct{ counts func() []probe.Count }

func (*probeMetrics) desc() *prometheus.Desc {
	return prometheus.NewDesc("prober_probe_total", "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}, nil)
}

// Describe implements prometheus.Collector.
func (p *probeMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- p.desc() }

// Collect implements prometheus.Collector.
func (p *probeMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range p.counts() {
		kind := strings.ToUpper(c.Kind[:1]) + c.Kind[1:]
		ch <- prometheus.MustNewConstMetric(p.desc(), prometheus.CounterValue, float64(c.Answers), kind, c.Outcome, c.Container, c.Pod.Name, c.Pod.Namespace, string(c.Pod.UID))
	}
}

// podCgroup is where a pod's cgroup is, or empty.
func (a *agent) podCgroup(pod *corev1.Pod) string {
	cg, _, err := a.tree.Plan(pod)
	if err != nil {
		return ""
	}
	return cg.Path
}
