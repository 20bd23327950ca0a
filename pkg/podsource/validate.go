package podsource

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Validate finds what an API server would have refused, and what only an API
// server could serve.
func Validate(pod *corev1.Pod) field.ErrorList {
	v := &validator{pod: pod, volumes: sets.New[string](), names: sets.New[string](), ports: sets.New[string]()}
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	v.subdomain(meta.Child("name"), pod.Name)
	v.label(meta.Child("namespace"), pod.Namespace)
	if strings.ContainsAny(string(pod.UID), "/_.\\ \n\t\x00") || len(pod.UID) > 64 {
		v.invalid(meta.Child("uid"), pod.UID, "may hold only letters, digits and dashes")
	}
	v.spec(spec, &pod.Spec)
	return v.errs
}

type validator struct {
	pod                   *corev1.Pod
	errs                  field.ErrorList
	volumes, names, ports sets.Set[string]
}

func (v *validator) invalid(p *field.Path, value any, why string) {
	v.errs = append(v.errs, field.Invalid(p, value, why))
}

func (v *validator) required(p *field.Path, value string) {
	if value == "" {
		v.errs = append(v.errs, field.Required(p, ""))
	}
}

func (v *validator) subdomain(p *field.Path, s string) {
	for _, m := range validation.IsDNS1123Subdomain(s) {
		v.invalid(p, s, m)
	}
}

func (v *validator) label(p *field.Path, s string) {
	for _, m := range validation.IsDNS1123Label(s) {
		v.invalid(p, s, m)
	}
}

// oneOf checks an enumeration.
func oneOf[T ~string](v *validator, p *field.Path, value T, allowed ...T) {
	for _, a := range allowed {
		if a == value {
			return
		}
	}
	v.errs = append(v.errs, field.NotSupported(p, value, allowed))
}

func (v *validator) spec(p *field.Path, s *corev1.PodSpec) {
	oneOf(v, p.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	oneOf(v, p.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, corev1.DNSDefault, corev1.DNSNone)
	if s.DNSPolicy == corev1.DNSNone && (s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0) {
		v.errs = append(v.errs, field.Required(p.Child("dnsConfig", "nameservers"), "with dnsPolicy None"))
	}
	if d := s.ActiveDeadlineSeconds; d != nil && *d < 1 {
		v.invalid(p.Child("activeDeadlineSeconds"), *d, "must be above 0")
	}
	if s.ServiceAccountName != "" {
		v.errs = append(v.errs, field.Forbidden(p.Child("serviceAccountName"), "a static pod has no API server to ask"))
	}
	if len(s.ResourceClaims) > 0 {
		v.errs = append(v.errs, field.Forbidden(p.Child("resourceClaims"), "a static pod has no API server to ask"))
	}
	if len(s.EphemeralContainers) > 0 {
		v.errs = append(v.errs, field.Forbidden(p.Child("ephemeralContainers"), "cannot be part of a manifest"))
	}
	if ptr.Deref(s.HostUsers, true) == false && (s.HostNetwork || s.HostPID || s.HostIPC) {
		v.errs = append(v.errs, field.Forbidden(p.Child("hostUsers"), "false goes with no namespace of the host"))
	}
	if ptr.Deref(s.ShareProcessNamespace, false) && s.HostPID {
		v.invalid(p.Child("shareProcessNamespace"), true, "goes not with hostPID")
	}
	v.text(p.Child("hostname"), s.Hostname)
	v.text(p.Child("subdomain"), s.Subdomain)
	if s.Hostname != "" {
		v.label(p.Child("hostname"), s.Hostname)
	}
	for i, a := range s.HostAliases {
		v.text(p.Child("hostAliases").Index(i).Child("ip"), a.IP)
		for j, h := range a.Hostnames {
			v.text(p.Child("hostAliases").Index(i).Child("hostnames").Index(j), h)
		}
	}
	for i := range s.Volumes {
		v.volume(p.Child("volumes").Index(i), &s.Volumes[i])
	}
	if len(s.Containers) == 0 {
		v.errs = append(v.errs, field.Required(p.Child("containers"), ""))
	}
	for i := range s.InitContainers {
		v.container(p.Child("initContainers").Index(i), &s.InitContainers[i], true)
	}
	for i := range s.Containers {
		v.container(p.Child("containers").Index(i), &s.Containers[i], false)
	}
}

// text refuses what would start a new line in a generated file.
func (v *validator) text(p *field.Path, s string) {
	if strings.ContainsAny(s, "\n\r\x00") {
		v.invalid(p, s, "may hold no control characters")
	}
}

func (v *validator) container(p *field.Path, c *corev1.Container, init bool) {
	v.required(p.Child("name"), c.Name)
	if c.Name != "" {
		v.label(p.Child("name"), c.Name)
	}
	if v.names.Has(c.Name) {
		v.errs = append(v.errs, field.Duplicate(p.Child("name"), c.Name))
	}
	v.names.Insert(c.Name)
	v.required(p.Child("image"), c.Image)
	if c.Image != strings.TrimSpace(c.Image) {
		v.invalid(p.Child("image"), c.Image, "may not begin or end with a space")
	}
	oneOf(v, p.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	sidecar := init && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	if c.RestartPolicy != nil {
		oneOf(v, p.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyOnFailure, corev1.ContainerRestartPolicyNever)
	}
	if init && !sidecar {
		for name, set := range map[string]bool{
			"livenessProbe": c.LivenessProbe != nil, "readinessProbe": c.ReadinessProbe != nil, "startupProbe": c.StartupProbe != nil, "lifecycle": c.Lifecycle != nil,
		} {
			if set {
				v.errs = append(v.errs, field.Forbidden(p.Child(name), "init containers that end have none"))
			}
		}
	}
	v.containerPorts(p.Child("ports"), c)
	v.env(p, c)
	v.mounts(p.Child("volumeMounts"), c)
	v.resources(p.Child("resources"), c)
	for name, probe := range map[string]*corev1.Probe{"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe, "startupProbe": c.StartupProbe} {
		v.probe(p.Child(name), name, probe)
	}
	v.security(p.Child("securityContext"), c.SecurityContext)
}

func (v *validator) containerPorts(p *field.Path, c *corev1.Container) {
	for i, port := range c.Ports {
		pi := p.Index(i)
		if port.ContainerPort < 1 || port.ContainerPort > 65535 {
			v.invalid(pi.Child("containerPort"), port.ContainerPort, "must be between 1 and 65535")
		}
		oneOf(v, pi.Child("protocol"), port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		if port.HostPort == 0 {
			continue
		}
		key := string(port.Protocol) + "/" + port.HostIP + "/" + field.NewPath("").Index(int(port.HostPort)).String()
		if v.ports.Has(key) {
			v.errs = append(v.errs, field.Duplicate(pi.Child("hostPort"), port.HostPort))
		}
		v.ports.Insert(key)
		if v.pod.Spec.HostNetwork && port.HostPort != port.ContainerPort {
			v.invalid(pi.Child("hostPort"), port.HostPort, "must match containerPort with hostNetwork")
		}
	}
}

func (v *validator) env(p *field.Path, c *corev1.Container) {
	for i, e := range c.Env {
		pi := p.Child("env").Index(i)
		v.required(pi.Child("name"), e.Name)
		if strings.ContainsAny(e.Name, "=\x00") {
			v.invalid(pi.Child("name"), e.Name, "may hold neither = nor NUL")
		}
		if e.Value != "" && e.ValueFrom != nil {
			v.invalid(pi.Child("valueFrom"), "", "may not be given together with value")
		}
	}
}

func (v *validator) mounts(p *field.Path, c *corev1.Container) {
	targets := sets.New[string]()
	for i, m := range c.VolumeMounts {
		pi := p.Index(i)
		if !v.volumes.Has(m.Name) {
			v.errs = append(v.errs, field.NotFound(pi.Child("name"), m.Name))
		}
		v.required(pi.Child("mountPath"), m.MountPath)
		if target := path.Clean(m.MountPath); targets.Has(target) {
			v.invalid(pi.Child("mountPath"), m.MountPath, "must be unique")
		} else {
			targets.Insert(target)
		}
		for name, sub := range map[string]string{"subPath": m.SubPath, "subPathExpr": m.SubPathExpr} {
			if path.IsAbs(sub) {
				v.invalid(pi.Child(name), sub, "must be a relative path")
			}
			for part := range strings.SplitSeq(sub, "/") {
				if part == ".." {
					v.invalid(pi.Child(name), sub, "must not contain '..'")
				}
			}
		}
		if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional &&
			(c.SecurityContext == nil || !ptr.Deref(c.SecurityContext.Privileged, false)) {
			v.errs = append(v.errs, field.Forbidden(pi.Child("mountPropagation"), "Bidirectional is for privileged containers"))
		}
	}
}

func (v *validator) resources(p *field.Path, c *corev1.Container) {
	for r, q := range c.Resources.Requests {
		if q.Sign() < 0 {
			v.invalid(p.Child("requests").Key(string(r)), q.String(), "must be at least 0")
		}
		if limit, set := c.Resources.Limits[r]; set && q.Cmp(limit) > 0 {
			v.invalid(p.Child("requests").Key(string(r)), q.String(), "must be less than or equal to "+string(r)+" limit of "+limit.String())
		}
	}
	for r, q := range c.Resources.Limits {
		if q.Sign() < 0 {
			v.invalid(p.Child("limits").Key(string(r)), q.String(), "must be at least 0")
		}
	}
}

func (v *validator) probe(p *field.Path, name string, probe *corev1.Probe) {
	if probe == nil {
		return
	}
	handlers := 0
	for _, set := range []bool{probe.Exec != nil, probe.HTTPGet != nil, probe.TCPSocket != nil, probe.GRPC != nil} {
		if set {
			handlers++
		}
	}
	if handlers != 1 {
		v.errs = append(v.errs, field.Required(p, "must have exactly one of exec, httpGet, tcpSocket and grpc"))
	}
	if name != "readinessProbe" && probe.SuccessThreshold != 1 {
		v.invalid(p.Child("successThreshold"), probe.SuccessThreshold, "must be 1")
	}
	for child, n := range map[string]int32{
		"initialDelaySeconds": probe.InitialDelaySeconds, "timeoutSeconds": probe.TimeoutSeconds, "periodSeconds": probe.PeriodSeconds, "failureThreshold": probe.FailureThreshold,
	} {
		if n < 0 {
			v.invalid(p.Child(child), n, "must be at least 0")
		}
	}
}

func (v *validator) security(p *field.Path, sc *corev1.SecurityContext) {
	if sc == nil {
		return
	}
	for name, id := range map[string]*int64{"runAsUser": sc.RunAsUser, "runAsGroup": sc.RunAsGroup} {
		if id != nil && (*id < 0 || *id > 1<<31-1) {
			v.invalid(p.Child(name), *id, "must be between 0 and 2147483647")
		}
	}
	if ptr.Deref(sc.AllowPrivilegeEscalation, true) == false && ptr.Deref(sc.Privileged, false) {
		v.invalid(p.Child("allowPrivilegeEscalation"), false, "goes not with privileged")
	}
}

func (v *validator) volume(p *field.Path, vol *corev1.Volume) {
	v.required(p.Child("name"), vol.Name)
	if vol.Name != "" {
		v.label(p.Child("name"), vol.Name)
	}
	if v.volumes.Has(vol.Name) {
		v.errs = append(v.errs, field.Duplicate(p.Child("name"), vol.Name))
	}
	v.volumes.Insert(vol.Name)
	switch {
	case vol.EmptyDir != nil, vol.ConfigMap != nil, vol.Secret != nil, vol.DownwardAPI != nil, vol.Projected != nil:
	case vol.HostPath != nil:
		v.required(p.Child("hostPath", "path"), vol.HostPath.Path)
		for part := range strings.SplitSeq(vol.HostPath.Path, "/") {
			if part == ".." {
				v.invalid(p.Child("hostPath", "path"), vol.HostPath.Path, "must not contain '..'")
			}
		}
	default:
		v.errs = append(v.errs, field.Forbidden(p, "this kind of volume is not served to static pods: use emptyDir, hostPath, configMap, secret, downwardAPI or projected"))
	}
}
