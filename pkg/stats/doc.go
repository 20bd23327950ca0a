// Package stats tells what the node, its pods and their containers use: as the
// kubelet's summary and as metrics for Prometheus.
//
// It reads when it is asked and never by itself: cgroup files, /proc and the file
// systems. An answer is good for a moment and shared by those who ask meanwhile;
// what it cost to find out does not grow with the number of those who ask. A part
// that cannot be read is left out.
//
//	[Reader] ──► sample of cgroups ──► Summary      (/stats/summary)
//	                              └──► Resources()  (/metrics/resource)
//	                              └──► Containers() (/metrics/cadvisor)
package stats
