package podsource

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volume finds a volume by name.
func (v *validator) volume(name string) *corev1.Volume {
	for i := range v.pod.Spec.Volumes {
		if v.pod.Spec.Volumes[i].Name == name {
			return &v.pod.Spec.Volumes[i]
		}
	}
	return nil
}

func (v *validator) volumes(path *field.Path) {
	names := map[string]bool{}
	for i := range v.pod.Spec.Volumes {
		vol, path := &v.pod.Spec.Volumes[i], path.Index(i)
		if vol.Name == "" {
			v.required(path.Child("name"), "")
		} else {
			v.messages(path.Child("name"), vol.Name, validation.IsDNS1123Label(vol.Name))
			if names[vol.Name] {
				v.add(field.Duplicate(path.Child("name"), vol.Name))
			}
		}
		names[vol.Name] = true
		if sources := setFields(vol.VolumeSource); len(sources) > 1 {
			v.forbidden(path, "%s exclude each other", strings.Join(sources, " and "))
			continue
		}
		v.volumeSource(path, &vol.VolumeSource)
	}
}

// setFields names the fields of a struct of pointers that are set.
func setFields(s any) []string {
	var out []string
	value := reflect.ValueOf(s)
	for i := range value.NumField() {
		if !value.Field(i).IsNil() {
			name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			out = append(out, name)
		}
	}
	return out
}

func (v *validator) volumeSource(path *field.Path, s *corev1.VolumeSource) {
	switch {
	case s.HostPath != nil:
		v.absolute(path.Child("hostPath", "path"), s.HostPath.Path)
		if s.HostPath.Type != nil {
			oneOf(v, path.Child("hostPath", "type"), *s.HostPath.Type, corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate,
				corev1.HostPathDirectory, corev1.HostPathFileOrCreate, corev1.HostPathFile, corev1.HostPathSocket,
				corev1.HostPathCharDev, corev1.HostPathBlockDev)
		}
	case s.EmptyDir != nil:
		v.emptyDir(path.Child("emptyDir"), s.EmptyDir)
	case s.ConfigMap != nil:
		path = path.Child("configMap")
		v.objectName(path.Child("name"), s.ConfigMap.Name)
		v.mode(path.Child("defaultMode"), s.ConfigMap.DefaultMode, 0o777)
		v.items(path.Child("items"), s.ConfigMap.Items)
	case s.Secret != nil:
		path = path.Child("secret")
		v.objectName(path.Child("secretName"), s.Secret.SecretName)
		v.mode(path.Child("defaultMode"), s.Secret.DefaultMode, 0o777)
		v.items(path.Child("items"), s.Secret.Items)
	case s.DownwardAPI != nil:
		path = path.Child("downwardAPI")
		v.mode(path.Child("defaultMode"), s.DownwardAPI.DefaultMode, 0o777)
		v.downwardItems(path.Child("items"), s.DownwardAPI.Items)
	case s.Projected != nil:
		v.projected(path.Child("projected"), s.Projected)
	case s.Image != nil:
		v.image(path.Child("image", "reference"), s.Image.Reference)
		oneOf(v, path.Child("image", "pullPolicy"), s.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	case s.NFS != nil:
		if s.NFS.Server == "" {
			v.required(path.Child("nfs", "server"), "")
		}
		v.absolute(path.Child("nfs", "path"), s.NFS.Path)
	case s.GitRepo != nil:
		v.forbidden(path.Child("gitRepo"), "runs hooks of the repository as root; clone in an init container instead")
	}
}

func (v *validator) emptyDir(path *field.Path, e *corev1.EmptyDirVolumeSource) {
	if e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		v.invalid(path.Child("sizeLimit"), e.SizeLimit.String(), "must not be negative")
	}
	v.mode(path.Child("mode"), e.Mode, 0o1777)
	if size, ok := strings.CutPrefix(string(e.Medium), string(corev1.StorageMediumHugePagesPrefix)); ok {
		if q, err := resource.ParseQuantity(size); err != nil || q.Sign() <= 0 {
			v.invalid(path.Child("medium"), e.Medium, "must end with a page size such as 2Mi")
		}
		return
	}
	oneOf(v, path.Child("medium"), e.Medium, corev1.StorageMediumDefault, corev1.StorageMediumMemory, corev1.StorageMediumHugePages)
}

func (v *validator) mode(path *field.Path, mode *int32, most int32) {
	if mode != nil && (*mode < 0 || *mode > most) {
		v.invalid(path, *mode, "must be between 0 and 0%o", most)
	}
}

// fileName checks a path within an atomically written volume, which keeps names
// that begin with two dots for itself.
func (v *validator) fileName(path *field.Path, name string) {
	if name == "" {
		v.required(path, "")
		return
	}
	v.relative(path, name)
	if strings.HasPrefix(name, "..") {
		v.invalid(path, name, "must not begin with '..'")
	}
}

func (v *validator) items(path *field.Path, items []corev1.KeyToPath) {
	for i := range items {
		item, path := &items[i], path.Index(i)
		if item.Key == "" {
			v.required(path.Child("key"), "")
		} else {
			v.messages(path.Child("key"), item.Key, validation.IsConfigMapKey(item.Key))
		}
		v.fileName(path.Child("path"), item.Path)
		v.mode(path.Child("mode"), item.Mode, 0o777)
	}
}

func (v *validator) downwardItems(path *field.Path, items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		item, path := &items[i], path.Index(i)
		v.fileName(path.Child("path"), item.Path)
		v.mode(path.Child("mode"), item.Mode, 0o777)
		v.exactlyOne(path, map[string]bool{"fieldRef": item.FieldRef != nil, "resourceFieldRef": item.ResourceFieldRef != nil})
		if item.FieldRef != nil {
			v.fieldRef(path.Child("fieldRef"), item.FieldRef, "metadata.name", "metadata.namespace", "metadata.uid",
				"metadata.labels", "metadata.annotations")
		}
		if item.ResourceFieldRef != nil {
			v.resourceFieldRef(path.Child("resourceFieldRef"), item.ResourceFieldRef, true)
		}
	}
}

func (v *validator) projected(path *field.Path, p *corev1.ProjectedVolumeSource) {
	v.mode(path.Child("defaultMode"), p.DefaultMode, 0o777)
	taken := map[string]bool{}
	take := func(path *field.Path, name string) {
		if taken[name] {
			v.invalid(path, name, "another source has a file there")
		}
		taken[name] = true
	}
	for i := range p.Sources {
		s, path := &p.Sources[i], path.Child("sources").Index(i)
		switch set := setFields(*s); {
		case len(set) == 0:
			v.required(path, "one of configMap, downwardAPI, secret")
		case len(set) > 1:
			v.forbidden(path, "%s exclude each other", strings.Join(set, " and "))
		case s.ConfigMap != nil:
			v.objectName(path.Child("configMap", "name"), s.ConfigMap.Name)
			v.items(path.Child("configMap", "items"), s.ConfigMap.Items)
			for j, item := range s.ConfigMap.Items {
				take(path.Child("configMap", "items").Index(j).Child("path"), item.Path)
			}
		case s.Secret != nil:
			v.objectName(path.Child("secret", "name"), s.Secret.Name)
			v.items(path.Child("secret", "items"), s.Secret.Items)
			for j, item := range s.Secret.Items {
				take(path.Child("secret", "items").Index(j).Child("path"), item.Path)
			}
		case s.DownwardAPI != nil:
			v.downwardItems(path.Child("downwardAPI", "items"), s.DownwardAPI.Items)
			for j, item := range s.DownwardAPI.Items {
				take(path.Child("downwardAPI", "items").Index(j).Child("path"), item.Path)
			}
		}
	}
}
