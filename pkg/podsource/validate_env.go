package podsource

import (
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *validator) env(c place) {
	for i := range c.Env {
		e, path := &c.Env[i], c.path.Child("env").Index(i)
		if e.Name == "" {
			v.required(path.Child("name"), "")
		} else {
			v.messages(path.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))
		}
		v.noNUL(path.Child("value"), e.Value)
		if e.ValueFrom != nil {
			if e.Value != "" {
				v.forbidden(path.Child("valueFrom"), "value and valueFrom exclude each other")
			}
			v.envSource(path.Child("valueFrom"), e.ValueFrom)
		}
	}
	for i := range c.EnvFrom {
		e, path := &c.EnvFrom[i], c.path.Child("envFrom").Index(i)
		if e.Prefix != "" {
			v.messages(path.Child("prefix"), e.Prefix, validation.IsRelaxedEnvVarName(e.Prefix))
		}
		v.exactlyOne(path, map[string]bool{"configMapRef": e.ConfigMapRef != nil, "secretRef": e.SecretRef != nil})
		if e.ConfigMapRef != nil {
			v.objectName(path.Child("configMapRef", "name"), e.ConfigMapRef.Name)
		}
		if e.SecretRef != nil {
			v.objectName(path.Child("secretRef", "name"), e.SecretRef.Name)
		}
	}
}

// exactlyOne checks a choice; set says of each of its fields whether it is set.
func (v *validator) exactlyOne(path *field.Path, set map[string]bool) {
	var names, found []string
	for name, is := range set {
		names = append(names, name)
		if is {
			found = append(found, name)
		}
	}
	slices.Sort(names)
	slices.Sort(found)
	switch {
	case len(found) == 0:
		v.required(path, "one of "+strings.Join(names, ", "))
	case len(found) > 1:
		v.forbidden(path, "%s exclude each other", strings.Join(found, " and "))
	}
}

// objectName is the name of a ConfigMap or Secret in the same directory.
func (v *validator) objectName(path *field.Path, name string) {
	if name == "" {
		v.required(path, "")
		return
	}
	v.messages(path, name, validation.IsDNS1123Subdomain(name))
}

func (v *validator) envSource(path *field.Path, s *corev1.EnvVarSource) {
	v.exactlyOne(path, map[string]bool{
		"fieldRef": s.FieldRef != nil, "resourceFieldRef": s.ResourceFieldRef != nil, "configMapKeyRef": s.ConfigMapKeyRef != nil,
		"secretKeyRef": s.SecretKeyRef != nil, "fileKeyRef": s.FileKeyRef != nil,
	})
	if f := s.FieldRef; f != nil {
		v.fieldRef(path.Child("fieldRef"), f, "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
			"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
	}
	if f := s.ResourceFieldRef; f != nil {
		v.resourceFieldRef(path.Child("resourceFieldRef"), f, false)
	}
	if k := s.ConfigMapKeyRef; k != nil {
		v.keyRef(path.Child("configMapKeyRef"), k.Name, k.Key)
	}
	if k := s.SecretKeyRef; k != nil {
		v.keyRef(path.Child("secretKeyRef"), k.Name, k.Key)
	}
	if k := s.FileKeyRef; k != nil {
		v.fileKeyRef(path.Child("fileKeyRef"), k)
	}
}

func (v *validator) keyRef(path *field.Path, name, key string) {
	v.objectName(path.Child("name"), name)
	if key == "" {
		v.required(path.Child("key"), "")
		return
	}
	v.messages(path.Child("key"), key, validation.IsConfigMapKey(key))
}

func (v *validator) fileKeyRef(path *field.Path, k *corev1.FileKeySelector) {
	v.messages(path.Child("key"), k.Key, validation.IsRelaxedEnvVarName(k.Key))
	if k.Path == "" {
		v.required(path.Child("path"), "")
	}
	v.relative(path.Child("path"), k.Path)
	switch vol := v.volume(k.VolumeName); {
	case k.VolumeName == "":
		v.required(path.Child("volumeName"), "")
	case vol == nil:
		v.add(field.NotFound(path.Child("volumeName"), k.VolumeName))
	case vol.EmptyDir == nil:
		v.invalid(path.Child("volumeName"), k.VolumeName, "must be an emptyDir volume")
	}
}

// fieldRef allows the listed fields, and single labels and annotations.
func (v *validator) fieldRef(path *field.Path, f *corev1.ObjectFieldSelector, allowed ...string) {
	if f.APIVersion != "v1" {
		v.invalid(path.Child("apiVersion"), f.APIVersion, "must be v1")
	}
	path = path.Child("fieldPath")
	if f.FieldPath == "" {
		v.required(path, "")
		return
	}
	if m := regexp.MustCompile(`^metadata\.(labels|annotations)\['(.*)'\]$`).FindStringSubmatch(f.FieldPath); m != nil {
		name := m[2]
		if m[1] == "annotations" {
			name = strings.ToLower(name)
		}
		v.messages(path, f.FieldPath, validation.IsQualifiedName(name))
		return
	}
	oneOf(v, path, f.FieldPath, allowed...)
}

// resourceFieldRef names a resource of a container: its own in env, and one that
// is named in a volume.
func (v *validator) resourceFieldRef(path *field.Path, f *corev1.ResourceFieldSelector, inVolume bool) {
	switch {
	case f.ContainerName == "" && inVolume:
		v.required(path.Child("containerName"), "")
	case f.ContainerName != "" && !slices.ContainsFunc(v.places(field.NewPath("spec")), func(p place) bool { return p.Name == f.ContainerName }):
		v.add(field.NotFound(path.Child("containerName"), f.ContainerName))
	}
	kind, name, _ := strings.Cut(f.Resource, ".")
	divisors := []string{"0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
	switch {
	case f.Resource == "":
		v.required(path.Child("resource"), "")
		return
	case kind != "limits" && kind != "requests",
		name != "cpu" && name != "memory" && name != "ephemeral-storage" && !strings.HasPrefix(name, corev1.ResourceHugePagesPrefix):
		v.invalid(path.Child("resource"), f.Resource, "must be limits. or requests. with cpu, memory, ephemeral-storage or hugepages-<size>")
		return
	case name == "cpu":
		divisors = []string{"0", "1m", "1"}
	}
	if !slices.ContainsFunc(divisors, func(d string) bool { return f.Divisor.Cmp(resource.MustParse(d)) == 0 }) {
		v.invalid(path.Child("divisor"), f.Divisor.String(), "must be one of %s", strings.Join(divisors[1:], ", "))
	}
}
