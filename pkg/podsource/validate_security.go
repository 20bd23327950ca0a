package podsource

import (
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func privileged(s *corev1.SecurityContext) bool { return s != nil && ptr.Deref(s.Privileged, false) }

func (v *validator) podSecurity(path *field.Path) {
	s := v.pod.Spec.SecurityContext
	if s == nil {
		return
	}
	v.user(path.Child("runAsUser"), s.RunAsUser)
	v.group(path.Child("runAsGroup"), s.RunAsGroup)
	v.group(path.Child("fsGroup"), s.FSGroup)
	for i := range s.SupplementalGroups {
		v.group(path.Child("supplementalGroups").Index(i), &s.SupplementalGroups[i])
	}
	if p := s.SupplementalGroupsPolicy; p != nil {
		oneOf(v, path.Child("supplementalGroupsPolicy"), *p, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if p := s.FSGroupChangePolicy; p != nil {
		oneOf(v, path.Child("fsGroupChangePolicy"), *p, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	}
	if p := s.SELinuxChangePolicy; p != nil {
		oneOf(v, path.Child("seLinuxChangePolicy"), *p, corev1.SELinuxChangePolicyRecursive, corev1.SELinuxChangePolicyMountOption)
	}
	v.seccomp(path.Child("seccompProfile"), s.SeccompProfile)
	v.appArmor(path.Child("appArmorProfile"), s.AppArmorProfile)
	v.sysctls(path.Child("sysctls"), s.Sysctls)
}

func (v *validator) user(path *field.Path, id *int64) {
	if id != nil {
		v.messages(path, *id, validation.IsValidUserID(*id))
	}
}

func (v *validator) group(path *field.Path, id *int64) {
	if id != nil {
		v.messages(path, *id, validation.IsValidGroupID(*id))
	}
}

func (v *validator) sysctls(path *field.Path, list []corev1.Sysctl) {
	name := regexp.MustCompile(`^[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*$`)
	seen := map[string]bool{}
	for i, s := range list {
		path := path.Index(i)
		switch {
		case s.Name == "":
			v.required(path.Child("name"), "")
		case len(s.Name) > 253 || !name.MatchString(s.Name):
			v.invalid(path.Child("name"), s.Name, "is not the name of a sysctl, such as net.ipv4.tcp_syncookies")
		}
		v.printable(path.Child("value"), s.Value)
		dotted := strings.ReplaceAll(s.Name, "/", ".")
		if seen[dotted] {
			v.add(field.Duplicate(path.Child("name"), s.Name))
		}
		seen[dotted] = true
		ipc := slices.ContainsFunc([]string{"kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."}, func(p string) bool { return strings.HasPrefix(dotted, p) })
		if strings.HasPrefix(dotted, "net.") && v.pod.Spec.HostNetwork {
			v.invalid(path.Child("name"), s.Name, "would change the host: the pod has hostNetwork")
		}
		if ipc && v.pod.Spec.HostIPC {
			v.invalid(path.Child("name"), s.Name, "would change the host: the pod has hostIPC")
		}
	}
}

func (v *validator) seccomp(path *field.Path, p *corev1.SeccompProfile) {
	if p == nil {
		return
	}
	oneOf(v, path.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	v.localhostProfile(path.Child("localhostProfile"), p.Type == corev1.SeccompProfileTypeLocalhost, p.LocalhostProfile)
	if p.LocalhostProfile != nil {
		v.relative(path.Child("localhostProfile"), *p.LocalhostProfile)
	}
}

func (v *validator) appArmor(path *field.Path, p *corev1.AppArmorProfile) {
	if p == nil {
		return
	}
	oneOf(v, path.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	v.localhostProfile(path.Child("localhostProfile"), p.Type == corev1.AppArmorProfileTypeLocalhost, p.LocalhostProfile)
	if p.LocalhostProfile != nil {
		v.printable(path.Child("localhostProfile"), *p.LocalhostProfile)
	}
}

// localhostProfile is set when the type is Localhost, and only then.
func (v *validator) localhostProfile(path *field.Path, wanted bool, profile *string) {
	switch {
	case wanted && strings.TrimSpace(ptr.Deref(profile, "")) == "":
		v.required(path, "type is Localhost")
	case !wanted && profile != nil:
		v.forbidden(path, "only for type Localhost")
	}
}

func (v *validator) security(c place) {
	s, path := c.SecurityContext, c.path.Child("securityContext")
	if s == nil {
		return
	}
	v.user(path.Child("runAsUser"), s.RunAsUser)
	v.group(path.Child("runAsGroup"), s.RunAsGroup)
	v.seccomp(path.Child("seccompProfile"), s.SeccompProfile)
	v.appArmor(path.Child("appArmorProfile"), s.AppArmorProfile)
	if s.ProcMount != nil {
		oneOf(v, path.Child("procMount"), *s.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if *s.ProcMount == corev1.UnmaskedProcMount && ptr.Deref(v.pod.Spec.HostUsers, true) {
			v.invalid(path.Child("procMount"), *s.ProcMount, "needs hostUsers: false")
		}
	}
	if ptr.Deref(s.AllowPrivilegeEscalation, true) {
		return
	}
	if privileged(s) {
		v.invalid(path.Child("allowPrivilegeEscalation"), false, "cannot be denied to a privileged container")
	}
	if s.Capabilities != nil && slices.ContainsFunc(s.Capabilities.Add, func(c corev1.Capability) bool {
		return strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_") == "SYS_ADMIN"
	}) {
		v.invalid(path.Child("allowPrivilegeEscalation"), false, "cannot be denied to a container with SYS_ADMIN")
	}
}

// hostNamespaces checks which namespaces of the host can be shared together.
func (v *validator) hostNamespaces(path *field.Path) {
	spec := &v.pod.Spec
	if ptr.Deref(spec.ShareProcessNamespace, false) && spec.HostPID {
		v.invalid(path.Child("shareProcessNamespace"), true, "shareProcessNamespace and hostPID exclude each other")
	}
	if ptr.Deref(spec.HostUsers, true) {
		return
	}
	for name, set := range map[string]bool{"hostNetwork": spec.HostNetwork, "hostPID": spec.HostPID, "hostIPC": spec.HostIPC} {
		if set {
			v.forbidden(path.Child(name), "a pod with hostUsers: false cannot have it")
		}
	}
}
