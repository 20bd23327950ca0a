package podsource

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate finds what an API server would refuse in a pod, as far as it matters
// to a node, and some things that no node can do. The pod must be defaulted.
//
// What only schedulers and controllers read (affinity, topology spread, readiness
// gates) is not checked.
func Validate(pod *corev1.Pod) field.ErrorList {
	v := &validator{pod: pod, ErrorList: validateObjectMeta(&pod.ObjectMeta)}
	v.uid()
	spec := field.NewPath("spec")
	v.spec(spec)
	v.volumes(spec.Child("volumes"))
	v.containers(spec)
	v.podResources(spec.Child("resources"))
	v.podSecurity(spec.Child("securityContext"))
	v.hostNamespaces(spec)
	v.dns(spec)
	return v.ErrorList
}

// validator collects what is wrong with one pod.
type validator struct {
	field.ErrorList
	pod *corev1.Pod
}

func (v *validator) add(errs ...*field.Error) { v.ErrorList = append(v.ErrorList, errs...) }

func (v *validator) invalid(path *field.Path, value any, format string, args ...any) {
	v.add(field.Invalid(path, value, fmt.Sprintf(format, args...)))
}

func (v *validator) required(path *field.Path, why string) { v.add(field.Required(path, why)) }

func (v *validator) forbidden(path *field.Path, format string, args ...any) {
	v.add(field.Forbidden(path, fmt.Sprintf(format, args...)))
}

// messages adds what one of apimachinery's checks found.
func (v *validator) messages(path *field.Path, value any, messages []string) {
	for _, m := range messages {
		v.invalid(path, value, "%s", m)
	}
}

// oneOf checks an enumeration.
func oneOf[T ~string](v *validator, path *field.Path, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		v.add(field.NotSupported(path, value, allowed))
	}
}

func (v *validator) notNegative(path *field.Path, n int64) {
	if n < 0 {
		v.invalid(path, n, "must not be negative")
	}
}

// printable refuses what can forge log lines or mount tables, and what no
// system call can be given.
func (v *validator) printable(path *field.Path, s string) {
	if strings.ContainsFunc(s, unicode.IsControl) {
		v.invalid(path, s, "must not contain control characters")
	}
}

// noNUL is for text that may well have several lines.
func (v *validator) noNUL(path *field.Path, s string) {
	if strings.ContainsRune(s, 0) {
		v.invalid(path, s, "must not contain a NUL character")
	}
}

// absolute checks a path from the root without steps back.
func (v *validator) absolute(path *field.Path, s string) {
	switch {
	case s == "":
		v.required(path, "")
		return
	case !strings.HasPrefix(s, "/"):
		v.invalid(path, s, "must be an absolute path")
	}
	v.noStepsBack(path, s)
}

// relative checks a path that stays below where it starts.
func (v *validator) relative(path *field.Path, s string) {
	if strings.HasPrefix(s, "/") {
		v.invalid(path, s, "must be a relative path")
	}
	v.noStepsBack(path, s)
}

func (v *validator) noStepsBack(path *field.Path, s string) {
	if slices.Contains(strings.Split(s, "/"), "..") {
		v.invalid(path, s, "must not contain '..'")
	}
	v.printable(path, s)
}

func validateObjectMeta(m *metav1.ObjectMeta) field.ErrorList {
	path := field.NewPath("metadata")
	v := &validator{}
	if m.Name == "" {
		v.required(path.Child("name"), "")
	} else {
		v.messages(path.Child("name"), m.Name, validation.IsDNS1123Subdomain(m.Name))
	}
	v.messages(path.Child("namespace"), m.Namespace, validation.IsDNS1123Label(m.Namespace))
	v.add(metavalidation.ValidateLabels(m.Labels, path.Child("labels"))...)
	v.add(apivalidation.ValidateAnnotations(m.Annotations, path.Child("annotations"))...)
	return v.ErrorList
}

// uid checks a UID given by hand. It becomes part of directory and cgroup names,
// where systemd writes "-" as "_": with both allowed, two UIDs could be one.
func (v *validator) uid() {
	if uid := string(v.pod.UID); uid != "" && !regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?$`).MatchString(uid) {
		v.invalid(field.NewPath("metadata", "uid"), uid, "must be at most 63 letters, digits and '-', and begin and end with a letter or digit")
	}
}

const maxSeconds = 1<<31 - 1

func (v *validator) spec(path *field.Path) {
	spec := &v.pod.Spec
	oneOf(v, path.Child("restartPolicy"), spec.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	if n := spec.TerminationGracePeriodSeconds; n != nil && (*n < 0 || *n > maxSeconds) {
		v.invalid(path.Child("terminationGracePeriodSeconds"), *n, "must be between 0 and %d", maxSeconds)
	}
	if n := spec.ActiveDeadlineSeconds; n != nil && (*n < 1 || *n > maxSeconds) {
		v.invalid(path.Child("activeDeadlineSeconds"), *n, "must be between 1 and %d", maxSeconds)
	}
	if spec.PriorityClassName != "" {
		v.messages(path.Child("priorityClassName"), spec.PriorityClassName, validation.IsDNS1123Subdomain(spec.PriorityClassName))
	}
	if p := spec.PreemptionPolicy; p != nil {
		oneOf(v, path.Child("preemptionPolicy"), *p, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if spec.OS != nil {
		oneOf(v, path.Child("os", "name"), spec.OS.Name, corev1.Linux, corev1.Windows)
	}
	v.add(metavalidation.ValidateLabels(spec.NodeSelector, path.Child("nodeSelector"))...)
	for i := range spec.Tolerations {
		v.toleration(path.Child("tolerations").Index(i), &spec.Tolerations[i])
	}
	if len(spec.EphemeralContainers) > 0 {
		v.forbidden(path.Child("ephemeralContainers"), "are only added to pods that run")
	}
	if len(spec.SchedulingGates) > 0 {
		v.forbidden(path.Child("schedulingGates"), "the pod is bound to this node already")
	}
	for i, s := range spec.ImagePullSecrets {
		if s.Name == "" {
			v.required(path.Child("imagePullSecrets").Index(i).Child("name"), "")
		}
	}
	v.resourceList(path.Child("overhead"), spec.Overhead)
}

func (v *validator) toleration(path *field.Path, t *corev1.Toleration) {
	if t.Key != "" {
		v.add(metavalidation.ValidateLabelName(t.Key, path.Child("key"))...)
	}
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		v.messages(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))
	case corev1.TolerationOpExists:
		if t.Value != "" {
			v.invalid(path.Child("value"), t.Value, "must be empty when operator is Exists")
		}
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		v.messages(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))
	default:
		oneOf(v, path.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt)
	}
	if t.Key == "" && t.Operator != corev1.TolerationOpExists {
		v.invalid(path.Child("operator"), t.Operator, "must be Exists when key is empty, which means all keys")
	}
	oneOf(v, path.Child("effect"), t.Effect, "", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		v.invalid(path.Child("effect"), t.Effect, "must be NoExecute when tolerationSeconds is set")
	}
}
