package podsource

import (
	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// Default fills in what the v1 API defaults in a pod. It is idempotent.
//
// Resize policies are left out: they steer changes through the API, which never
// come to a static pod.
func Default(pod *corev1.Pod) {
	spec := &pod.Spec
	orElse(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	orElse(&spec.DNSPolicy, corev1.DNSClusterFirst)
	orElse(&spec.SchedulerName, corev1.DefaultSchedulerName)
	orNew(&spec.SecurityContext, corev1.PodSecurityContext{})
	orNew(&spec.EnableServiceLinks, true)
	orNew(&spec.TerminationGracePeriodSeconds, 30)
	if *spec.TerminationGracePeriodSeconds < 0 {
		*spec.TerminationGracePeriodSeconds = 1
	}
	if spec.ServiceAccountName == "" {
		spec.ServiceAccountName = spec.DeprecatedServiceAccount
	}
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i].VolumeSource)
	}
	for i := range spec.InitContainers {
		defaultContainer(&spec.InitContainers[i], spec.HostNetwork)
	}
	for i := range spec.Containers {
		defaultContainer(&spec.Containers[i], spec.HostNetwork)
	}
	roundUp(spec.Overhead)
	defaultPodResources(pod)
}

// orElse sets what is empty.
func orElse[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// orNew sets what is nil.
func orNew[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func defaultContainer(c *corev1.Container, hostNetwork bool) {
	orElse(&c.ImagePullPolicy, pullPolicyFor(c.Image))
	orElse(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	orElse(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		p := &c.Ports[i]
		orElse(&p.Protocol, corev1.ProtocolTCP)
		if hostNetwork {
			orElse(&p.HostPort, p.ContainerPort)
		}
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				orNew(&from.FileKeyRef.Optional, false)
			}
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	c.Resources.Requests = fill(c.Resources.Requests, c.Resources.Limits)
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p != nil {
			defaultProbe(p)
		}
	}
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				defaultHTTPGet(h.HTTPGet)
			}
		}
	}
}

// pullPolicyFor always asks the registry about a tag that moves by nature.
func pullPolicyFor(image string) corev1.PullPolicy {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return corev1.PullIfNotPresent // the pull will say what is wrong
	}
	_, digested := ref.(reference.Digested)
	if tagged, ok := ref.(reference.Tagged); ok && tagged.Tag() == "latest" || !ok && !digested {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

func defaultProbe(p *corev1.Probe) {
	orElse(&p.TimeoutSeconds, 1)
	orElse(&p.PeriodSeconds, 10)
	orElse(&p.SuccessThreshold, 1)
	orElse(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		orNew(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(h *corev1.HTTPGetAction) {
	if h != nil {
		orElse(&h.Path, "/")
		orElse(&h.Scheme, corev1.URISchemeHTTP)
	}
}

func defaultFieldRef(f *corev1.ObjectFieldSelector) {
	if f != nil {
		orElse(&f.APIVersion, "v1")
	}
}

func defaultVolume(v *corev1.VolumeSource) {
	const mode = 0o644
	switch {
	case *v == corev1.VolumeSource{}:
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	case v.HostPath != nil:
		orNew(&v.HostPath.Type, corev1.HostPathUnset)
	case v.Secret != nil:
		orNew(&v.Secret.DefaultMode, mode)
	case v.ConfigMap != nil:
		orNew(&v.ConfigMap.DefaultMode, mode)
	case v.DownwardAPI != nil:
		orNew(&v.DownwardAPI.DefaultMode, mode)
		defaultItems(v.DownwardAPI.Items)
	case v.Image != nil:
		orElse(&v.Image.PullPolicy, pullPolicyFor(v.Image.Reference))
	case v.ISCSI != nil:
		orElse(&v.ISCSI.ISCSIInterface, "default")
	case v.Projected != nil:
		orNew(&v.Projected.DefaultMode, mode)
		for i := range v.Projected.Sources {
			if d := v.Projected.Sources[i].DownwardAPI; d != nil {
				defaultItems(d.Items)
			}
		}
	}
}

func defaultItems(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

// roundUp rounds to thousandths, the finest that is kept of any quantity.
func roundUp(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(resource.Milli)
		list[name] = q
	}
}

// fill adds to list what only other has.
func fill(list, other corev1.ResourceList) corev1.ResourceList {
	for name, q := range other {
		if _, set := list[name]; !set {
			if list == nil {
				list = corev1.ResourceList{}
			}
			list[name] = q.DeepCopy()
		}
	}
	return list
}

// isSidecar says whether an init container runs beside the others.
func isSidecar(c *corev1.Container) bool {
	return ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
}
