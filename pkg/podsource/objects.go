package podsource

import (
	"fmt"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxObject is what the data of one ConfigMap or Secret may add up to.
const maxObject = 1 << 20

func (p *parser) configMap(n *yaml.Node) {
	obj := &corev1.ConfigMap{}
	_, lines, ok := p.decode(n, obj, false)
	if !ok {
		return
	}
	cleanMeta(&obj.ObjectMeta)
	errs := validateObjectMeta(&obj.ObjectMeta)
	size := 0
	for key, value := range obj.Data {
		size += len(value)
		errs = append(errs, validateKey(key, field.NewPath("data"))...)
		if _, twice := obj.BinaryData[key]; twice {
			errs = append(errs, field.Duplicate(field.NewPath("binaryData").Key(key), key))
		}
	}
	for key, value := range obj.BinaryData {
		size += len(value)
		errs = append(errs, validateKey(key, field.NewPath("binaryData"))...)
	}
	if p.accept("ConfigMap", obj, n.Line, lines, append(errs, validateSize(size)...)) {
		p.parsed.ConfigMaps = append(p.parsed.ConfigMaps, obj)
	}
}

func (p *parser) secret(n *yaml.Node) {
	obj := &corev1.Secret{}
	_, lines, ok := p.decode(n, obj, true)
	if !ok {
		return
	}
	cleanMeta(&obj.ObjectMeta)
	if obj.Type == "" {
		obj.Type = corev1.SecretTypeOpaque
	}
	errs := validateObjectMeta(&obj.ObjectMeta)
	for key := range obj.Data {
		errs = append(errs, validateKey(key, field.NewPath("data"))...)
	}
	for key, value := range obj.StringData {
		errs = append(errs, validateKey(key, field.NewPath("stringData"))...)
		if obj.Data == nil {
			obj.Data = map[string][]byte{}
		}
		obj.Data[key] = []byte(value)
	}
	obj.StringData = nil // for writing only, as in the API
	size := 0
	for _, value := range obj.Data {
		size += len(value)
	}
	errs = append(errs, validateSecretType(obj)...)
	if p.accept("Secret", obj, n.Line, lines, append(errs, validateSize(size)...)) {
		p.parsed.Secrets = append(p.parsed.Secrets, obj)
	}
}

// accept reports what is wrong with an object, or notes it.
func (p *parser) accept(kind string, obj metav1.Object, line int, lines lineIndex, errs field.ErrorList) bool {
	p.problems = append(p.problems, problems(p.file, "", lines.locate(errs))...)
	return len(errs) == 0 && p.add(kind, obj, line)
}

func validateKey(key string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, m := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path.Key(key), key, m))
	}
	return errs
}

func validateSize(size int) field.ErrorList {
	if size > maxObject {
		return field.ErrorList{field.TooLong(field.NewPath("data"), "", maxObject)}
	}
	return nil
}

// validateSecretType checks the keys that a type promises.
func validateSecretType(obj *corev1.Secret) field.ErrorList {
	var wanted []string
	switch obj.Type {
	case corev1.SecretTypeDockerConfigJson:
		wanted = []string{corev1.DockerConfigJsonKey}
	case corev1.SecretTypeDockercfg:
		wanted = []string{corev1.DockerConfigKey}
	case corev1.SecretTypeTLS:
		wanted = []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey}
	case corev1.SecretTypeSSHAuth:
		wanted = []string{corev1.SSHAuthPrivateKey}
	case corev1.SecretTypeBasicAuth:
		if _, ok := obj.Data[corev1.BasicAuthUsernameKey]; !ok {
			wanted = []string{corev1.BasicAuthPasswordKey}
		}
	}
	var errs field.ErrorList
	for _, key := range wanted {
		if _, ok := obj.Data[key]; !ok {
			errs = append(errs, field.Required(field.NewPath("data").Key(key), fmt.Sprintf("a secret of type %s has it", obj.Type)))
		}
	}
	return errs
}
