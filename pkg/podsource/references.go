package podsource

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// references refuses what points at an object of an API server. ConfigMaps and
// Secrets are no such objects here: they come from the manifest directory, and a
// pod may well be there before they are.
func references(pod *corev1.Pod) field.ErrorList {
	spec := &pod.Spec
	path := field.NewPath("spec")
	var errs field.ErrorList
	refuse := func(path *field.Path, set bool) {
		if set {
			errs = append(errs, field.Forbidden(path, "a static pod cannot refer to an object of an API server"))
		}
	}
	refuse(path.Child("serviceAccountName"), spec.ServiceAccountName != "")
	refuse(path.Child("runtimeClassName"), spec.RuntimeClassName != nil)
	refuse(path.Child("resourceClaims"), len(spec.ResourceClaims) > 0)
	refuse(path.Child("schedulingGroup"), spec.SchedulingGroup != nil)
	refuse(path.Child("evictionResponders"), len(spec.EvictionResponders) > 0)
	v := &validator{pod: pod}
	for _, c := range v.places(path) {
		refuse(c.path.Child("resources", "claims"), len(c.Resources.Claims) > 0)
	}
	if spec.Resources != nil {
		refuse(path.Child("resources", "claims"), len(spec.Resources.Claims) > 0)
	}
	for i := range spec.Volumes {
		s, path := &spec.Volumes[i].VolumeSource, path.Child("volumes").Index(i)
		refuse(path.Child("persistentVolumeClaim"), s.PersistentVolumeClaim != nil)
		refuse(path.Child("csi"), s.CSI != nil)
		refuse(path.Child("ephemeral"), s.Ephemeral != nil)
		refuse(path.Child("glusterfs"), s.Glusterfs != nil)
		refuse(path.Child("azureFile"), s.AzureFile != nil)
		if s.Projected == nil {
			continue
		}
		for j := range s.Projected.Sources {
			p, path := &s.Projected.Sources[j], path.Child("projected", "sources").Index(j)
			refuse(path.Child("serviceAccountToken"), p.ServiceAccountToken != nil)
			refuse(path.Child("clusterTrustBundle"), p.ClusterTrustBundle != nil)
			refuse(path.Child("podCertificate"), p.PodCertificate != nil)
		}
	}
	return errs
}
