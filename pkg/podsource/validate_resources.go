package podsource

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

func (v *validator) containerResources(c place) {
	path := c.path.Child("resources")
	v.requirements(path, &c.Resources)
	if pod := v.pod.Spec.Resources; pod != nil {
		for _, name := range sortedNames(c.Resources.Limits) {
			limit := c.Resources.Limits[name]
			if most, set := pod.Limits[name]; set && limit.Cmp(most) > 0 {
				v.invalid(path.Child("limits").Key(string(name)), limit.String(), "must not be above the pod's limit of %s", most.String())
			}
		}
	}
}

func (v *validator) podResources(path *field.Path) {
	r := v.pod.Spec.Resources
	if r == nil {
		return
	}
	v.requirements(path, r)
	for _, list := range []struct {
		name string
		list corev1.ResourceList
	}{{"limits", r.Limits}, {"requests", r.Requests}} {
		for _, name := range sortedNames(list.list) {
			if !resourcehelper.IsSupportedPodLevelResource(name) {
				v.add(field.NotSupported(path.Child(list.name).Key(string(name)), name, []string{"cpu", "memory", "hugepages-<size>"}))
			}
		}
	}
	sum := resourcehelper.AggregateContainerRequests(v.pod, resourcehelper.PodResourcesOptions{})
	for _, name := range sortedNames(r.Requests) {
		request := r.Requests[name]
		if total, set := sum[name]; set && total.Cmp(request) > 0 {
			v.invalid(path.Child("requests").Key(string(name)), request.String(), "must not be below what the containers request together, %s", total.String())
		}
	}
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	return slices.Sorted(maps.Keys(list))
}

// requirements checks requests and limits of a container or a pod.
func (v *validator) requirements(path *field.Path, r *corev1.ResourceRequirements) {
	v.resourceList(path.Child("limits"), r.Limits)
	v.resourceList(path.Child("requests"), r.Requests)
	for _, name := range sortedNames(r.Requests) {
		request := r.Requests[name]
		limit, limited := r.Limits[name]
		at := path.Child("requests").Key(string(name))
		switch {
		case limited && request.Cmp(limit) > 0:
			v.invalid(at, request.String(), "must not be above the limit of %s", limit.String())
		case mayOvercommit(name):
		case !limited:
			v.required(path.Child("limits").Key(string(name)), "a request for "+string(name)+" needs a limit")
		case request.Cmp(limit) != 0:
			v.invalid(at, request.String(), "must be the limit, %s: %s cannot be overcommitted", limit.String(), name)
		}
	}
	names := append(sortedNames(r.Limits), sortedNames(r.Requests)...)
	if slices.ContainsFunc(names, isHugePages) && !slices.Contains(names, corev1.ResourceCPU) && !slices.Contains(names, corev1.ResourceMemory) {
		v.forbidden(path, "huge pages need cpu or memory beside them")
	}
}

// mayOvercommit says of a resource whether more may be used than was requested.
func mayOvercommit(name corev1.ResourceName) bool {
	return !isHugePages(name) && !isExtended(name)
}

// isExtended says whether somebody else than Kubernetes defines a resource.
func isExtended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.HasPrefix(string(name), corev1.ResourceDefaultNamespacePrefix)
}

func (v *validator) resourceList(path *field.Path, list corev1.ResourceList) {
	for _, name := range sortedNames(list) {
		q, at := list[name], path.Key(string(name))
		if q.Sign() < 0 {
			v.invalid(at, q.String(), "must not be negative")
		}
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage:
		case isHugePages(name):
			size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
			if err != nil || size.Value() <= 0 {
				v.invalid(at, string(name), "must end with a page size such as 2Mi")
			} else if q.Value()%size.Value() != 0 {
				v.invalid(at, q.String(), "must be a multiple of the page size")
			}
		case isExtended(name):
			v.messages(at, string(name), validation.IsQualifiedName(string(name)))
			if q.MilliValue()%1000 != 0 {
				v.invalid(at, q.String(), "must be a whole number")
			}
		default:
			v.invalid(at, string(name), "is not a resource: want cpu, memory, ephemeral-storage, hugepages-<size> or a name with a domain")
		}
	}
}
