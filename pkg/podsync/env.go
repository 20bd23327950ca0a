package podsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// Lookups is where a container's configuration comes from beside its own spec.
type Lookups struct {
	// ConfigMap and Secret find objects for a pod; a missing one matches fs.ErrNotExist.
	ConfigMap func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error)
	Secret    func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error)
	// Services are variables that tell a pod of services. Its own come before them.
	// Nil means that there are none.
	Services func(ctx context.Context, pod *corev1.Pod) (map[string]string, error)
	// Field is a fieldRef's value: the pod carries its status and addresses.
	Field func(pod *corev1.Pod, path string) (string, error)
	// Resource is a resourceFieldRef's value for this container.
	Resource func(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error)
	// Credentials picks what a docker config.json has for an image. Nil means that
	// image pull secrets are not supported.
	Credentials func(config []byte, image string) ([]cri.Credential, error)
	// Providers has what programs of this machine say for an image that has to be
	// pulled. Nil means that there are none.
	Providers func(ctx context.Context, pod *corev1.Pod, image string) ([]cri.Credential, error)
}

// environment is an ordered set of variables; a later value of the same name
// replaces the earlier one in its place.
type environment struct {
	names  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, known := e.values[name]; !known {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environment) lookup(name string) (string, bool) {
	v, ok := e.values[name]
	return v, ok
}

// list renders NAME=value in order.
func (e *environment) list() []string {
	out := make([]string, len(e.names))
	for i, n := range e.names {
		out[i] = n + "=" + e.values[n]
	}
	return out
}

// env computes the variables of c: envFrom first, then env, each of which may
// refer to those before it by $(NAME), and to those of services. skipped lists
// keys that cannot be names of variables, by source.
func env(ctx context.Context, pod *corev1.Pod, c *corev1.Container, from Lookups) (e environment, skipped []string, err error) {
	e.values = map[string]string{}
	services, err := servicesOf(ctx, pod, from)
	if err != nil {
		return e, nil, err
	}
	known := func(name string) (string, bool) {
		if v, ok := e.lookup(name); ok {
			return v, true
		}
		v, ok := services[name]
		return v, ok
	}
	for i := range c.EnvFrom {
		bad, err := e.addAll(ctx, pod, &c.EnvFrom[i], from)
		if err != nil {
			return e, nil, err
		}
		skipped = append(skipped, bad...)
	}
	for i := range c.Env {
		v := &c.Env[i]
		if v.ValueFrom == nil {
			e.set(v.Name, expand(v.Value, known))
			continue
		}
		value, present, err := valueFrom(ctx, pod, c, v.ValueFrom, from)
		if err != nil {
			return e, nil, fmt.Errorf("env %s: %w", v.Name, err)
		}
		if present {
			e.set(v.Name, value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, taken := e.lookup(name); !taken {
			e.set(name, services[name])
		}
	}
	return e, skipped, nil
}

func servicesOf(ctx context.Context, pod *corev1.Pod, from Lookups) (map[string]string, error) {
	if from.Services == nil {
		return nil, nil
	}
	return from.Services(ctx, pod)
}

// addAll adds every key of a config map or secret.
func (e *environment) addAll(ctx context.Context, pod *corev1.Pod, src *corev1.EnvFromSource, from Lookups) (skipped []string, err error) {
	var data map[string]string
	var origin string
	switch {
	case src.ConfigMapRef != nil:
		origin = "configMap " + pod.Namespace + "/" + src.ConfigMapRef.Name
		m, err := from.ConfigMap(ctx, pod, src.ConfigMapRef.Name)
		if err != nil {
			return nil, unlessOptional(err, src.ConfigMapRef.Optional)
		}
		data = m.Data
	case src.SecretRef != nil:
		origin = "secret " + pod.Namespace + "/" + src.SecretRef.Name
		s, err := from.Secret(ctx, pod, src.SecretRef.Name)
		if err != nil {
			return nil, unlessOptional(err, src.SecretRef.Optional)
		}
		data = secretText(s)
	}
	var bad []string
	for _, k := range slices.Sorted(maps.Keys(data)) {
		if name := src.Prefix + k; isEnvName(name) {
			e.set(name, data[k])
		} else {
			bad = append(bad, name)
		}
	}
	if len(bad) > 0 {
		skipped = append(skipped, fmt.Sprintf("Keys [%s] from the EnvFrom %s were skipped since they are considered invalid environment variable names.",
			strings.Join(bad, ", "), origin))
	}
	return skipped, nil
}

// valueFrom reads one value; present is false when an optional source is absent,
// and the variable is then not set at all.
func valueFrom(ctx context.Context, pod *corev1.Pod, c *corev1.Container, src *corev1.EnvVarSource, from Lookups) (value string, present bool, err error) {
	switch {
	case src.FieldRef != nil:
		value, err = from.Field(pod, src.FieldRef.FieldPath)
	case src.ResourceFieldRef != nil:
		value, err = from.Resource(pod, c, src.ResourceFieldRef)
	case src.ConfigMapKeyRef != nil:
		ref := src.ConfigMapKeyRef
		m, err := from.ConfigMap(ctx, pod, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		return key(m.Data, ref.Key, "ConfigMap", pod.Namespace+"/"+ref.Name, ref.Optional)
	case src.SecretKeyRef != nil:
		ref := src.SecretKeyRef
		s, err := from.Secret(ctx, pod, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		return key(secretText(s), ref.Key, "Secret", pod.Namespace+"/"+ref.Name, ref.Optional)
	default:
		err = errors.New("this kind of value source is not supported")
	}
	return value, err == nil, err
}

func key(data map[string]string, name, kind, owner string, optional *bool) (string, bool, error) {
	v, ok := data[name]
	if ok || optional != nil && *optional {
		return v, ok, nil
	}
	return "", false, fmt.Errorf("couldn't find key %s in %s %s", name, kind, owner)
}

func unlessOptional(err error, optional *bool) error {
	if optional != nil && *optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func secretText(s *corev1.Secret) map[string]string {
	text := make(map[string]string, len(s.Data)+len(s.StringData))
	for k, v := range s.Data {
		text[k] = string(v)
	}
	maps.Copy(text, s.StringData) // nobody merged it when it came from a manifest
	return text
}

// pullCredentials reads the pod's image pull secrets for one image. As in the
// kubelet a secret that is missing is no error: the image may need none. It is
// told all the same.
func pullCredentials(ctx context.Context, pod *corev1.Pod, image string, from Lookups) (found []cri.Credential, problems []error) {
	if from.Credentials == nil {
		return nil, nil
	}
	for _, ref := range pod.Spec.ImagePullSecrets {
		s, err := from.Secret(ctx, pod, ref.Name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		list, err := from.Credentials(dockerConfig(s), image)
		if err != nil {
			problems = append(problems, fmt.Errorf("secret %s/%s: %w", pod.Namespace, ref.Name, err))
			continue
		}
		found = append(found, list...)
	}
	return found, problems
}

// dockerConfig is what a pull secret holds. The older of the two forms is the
// newer one's only field.
func dockerConfig(s *corev1.Secret) []byte {
	text := secretText(s)
	if old, ok := text[corev1.DockerConfigKey]; ok && s.Type != corev1.SecretTypeDockerConfigJson {
		return []byte(`{"auths":` + old + `}`)
	}
	return []byte(text[corev1.DockerConfigJsonKey])
}

// isEnvName accepts what Kubernetes accepts since it relaxed the rule: printable
// ASCII without an equals sign.
func isEnvName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == '=' })
}
