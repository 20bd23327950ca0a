package object

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"
)

type kind string

const (
	configMaps   kind = "configmap"
	secrets      kind = "secret"
	services     kind = "service"
	trustBundles kind = "clustertrustbundle"
)

// key is what one watch is for: an object by its name, or all that selectors pick.
type key struct {
	kind                      kind
	namespace, fields, labels string
}

func named(k kind, namespace, name string) key {
	return key{kind: k, namespace: namespace, fields: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
}

// apiServer is the service by which pods find the API server.
func apiServer() key { return named(services, metav1.NamespaceDefault, "kubernetes") }

// bundlesOf is the watch that a projection of trust bundles needs; ok is false where
// it picks none by definition.
func bundlesOf(p *corev1.ClusterTrustBundleProjection) (k key, ok bool, err error) {
	if p.Name != nil {
		return named(trustBundles, "", *p.Name), true, nil
	}
	if p.LabelSelector == nil { // without one nothing matches, as the API defines it
		return key{}, false, nil
	}
	labels, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	if err != nil {
		return key{}, false, err
	}
	signer := fields.OneTermEqualSelector("spec.signerName", ptr.Deref(p.SignerName, "")).String()
	return key{kind: trustBundles, fields: signer, labels: labels.String()}, true, nil
}

// references are the watches that a pod needs. What a pod names that cannot be
// watched is told when it is looked up.
func references(pod *corev1.Pod) map[key]bool {
	r := collector{namespace: pod.Namespace, found: map[key]bool{apiServer(): true}}
	if ptr.Deref(pod.Spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks) {
		r.found[key{kind: services, namespace: pod.Namespace}] = true
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		r.add(secrets, s.Name)
	}
	for i := range pod.Spec.InitContainers {
		r.container(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		r.container(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		r.container(&c)
	}
	for i := range pod.Spec.Volumes {
		r.volume(&pod.Spec.Volumes[i])
	}
	return r.found
}

type collector struct {
	namespace string
	found     map[key]bool
}

func (r collector) add(k kind, name string) {
	if name != "" {
		r.found[named(k, r.namespace, name)] = true
	}
}

func (r collector) container(c *corev1.Container) {
	for _, e := range c.EnvFrom {
		if e.ConfigMapRef != nil {
			r.add(configMaps, e.ConfigMapRef.Name)
		}
		if e.SecretRef != nil {
			r.add(secrets, e.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		switch v := e.ValueFrom; {
		case v == nil:
		case v.ConfigMapKeyRef != nil:
			r.add(configMaps, v.ConfigMapKeyRef.Name)
		case v.SecretKeyRef != nil:
			r.add(secrets, v.SecretKeyRef.Name)
		}
	}
}

func (r collector) volume(v *corev1.Volume) {
	switch {
	case v.ConfigMap != nil:
		r.add(configMaps, v.ConfigMap.Name)
	case v.Secret != nil:
		r.add(secrets, v.Secret.SecretName)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			r.projection(&v.Projected.Sources[i])
		}
	}
}

func (r collector) projection(p *corev1.VolumeProjection) {
	switch {
	case p.ConfigMap != nil:
		r.add(configMaps, p.ConfigMap.Name)
	case p.Secret != nil:
		r.add(secrets, p.Secret.Name)
	case p.ClusterTrustBundle != nil:
		if k, ok, err := bundlesOf(p.ClusterTrustBundle); ok && err == nil {
			r.found[k] = true
		}
	}
}
