package podsource

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// place is where a container stands in its pod.
type place struct {
	*corev1.Container
	path *field.Path
	init bool
}

func (p place) sidecar() bool { return p.init && isSidecar(p.Container) }

// places lists all containers, init containers first.
func (v *validator) places(spec *field.Path) []place {
	var out []place
	for i := range v.pod.Spec.InitContainers {
		out = append(out, place{&v.pod.Spec.InitContainers[i], spec.Child("initContainers").Index(i), true})
	}
	for i := range v.pod.Spec.Containers {
		out = append(out, place{&v.pod.Spec.Containers[i], spec.Child("containers").Index(i), false})
	}
	return out
}

func (v *validator) containers(spec *field.Path) {
	if len(v.pod.Spec.Containers) == 0 {
		v.required(spec.Child("containers"), "a pod has at least one")
	}
	names := map[string]bool{}
	ports := map[string]bool{}
	for _, c := range v.places(spec) {
		if names[c.Name] && c.Name != "" {
			v.add(field.Duplicate(c.path.Child("name"), c.Name))
		}
		names[c.Name] = true
		v.container(c)
		v.env(c)
		v.mounts(c)
		v.ports(c, ports)
		v.probes(c)
		v.restart(c)
		v.containerResources(c)
		v.security(c)
	}
}

func (v *validator) container(c place) {
	if c.Name == "" {
		v.required(c.path.Child("name"), "")
	} else {
		v.messages(c.path.Child("name"), c.Name, validation.IsDNS1123Label(c.Name))
	}
	v.image(c.path.Child("image"), c.Image)
	oneOf(v, c.path.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	oneOf(v, c.path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	v.absolute(c.path.Child("terminationMessagePath"), c.TerminationMessagePath)
	v.printable(c.path.Child("workingDir"), c.WorkingDir)
	for i, s := range c.Command {
		v.noNUL(c.path.Child("command").Index(i), s)
	}
	for i, s := range c.Args {
		v.noNUL(c.path.Child("args").Index(i), s)
	}
	for i := range c.ResizePolicy {
		p := &c.ResizePolicy[i]
		oneOf(v, c.path.Child("resizePolicy").Index(i).Child("resourceName"), p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		oneOf(v, c.path.Child("resizePolicy").Index(i).Child("restartPolicy"), p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
	}
}

func (v *validator) image(path *field.Path, image string) {
	switch {
	case image == "":
		v.required(path, "")
	case strings.TrimSpace(image) != image:
		v.invalid(path, image, "must not begin or end with white space")
	default:
		v.printable(path, image)
	}
}

// ports checks a container's ports; taken holds the host ports of the pod.
func (v *validator) ports(c place, taken map[string]bool) {
	names := map[string]bool{}
	if c.init && !c.sidecar() {
		taken = map[string]bool{} // it has ended when others take theirs
	}
	for i := range c.Ports {
		p, path := &c.Ports[i], c.path.Child("ports").Index(i)
		if p.Name != "" {
			v.messages(path.Child("name"), p.Name, validation.IsValidPortName(p.Name))
			if names[p.Name] {
				v.add(field.Duplicate(path.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		if p.ContainerPort == 0 {
			v.required(path.Child("containerPort"), "")
		} else {
			v.messages(path.Child("containerPort"), p.ContainerPort, validation.IsValidPortNum(int(p.ContainerPort)))
		}
		oneOf(v, path.Child("protocol"), p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		if p.HostIP != "" {
			v.add(validation.IsValidIP(path.Child("hostIP"), p.HostIP)...)
		}
		if p.HostPort == 0 {
			continue
		}
		v.messages(path.Child("hostPort"), p.HostPort, validation.IsValidPortNum(int(p.HostPort)))
		if v.pod.Spec.HostNetwork && p.HostPort != p.ContainerPort {
			v.invalid(path.Child("hostPort"), p.HostPort, "must be the containerPort when hostNetwork is true")
		}
		if key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort); taken[key] {
			v.add(field.Duplicate(path.Child("hostPort"), key))
		} else {
			taken[key] = true
		}
	}
}

func (v *validator) mounts(c place) {
	taken := map[string]bool{}
	for i := range c.VolumeMounts {
		m, path := &c.VolumeMounts[i], c.path.Child("volumeMounts").Index(i)
		vol := v.volume(m.Name)
		switch {
		case m.Name == "":
			v.required(path.Child("name"), "")
		case vol == nil:
			v.add(field.NotFound(path.Child("name"), m.Name))
		}
		v.absolute(path.Child("mountPath"), m.MountPath)
		if taken[m.MountPath] {
			v.invalid(path.Child("mountPath"), m.MountPath, "another volume is mounted there")
		}
		taken[m.MountPath] = true
		if m.SubPath != "" && m.SubPathExpr != "" {
			v.invalid(path.Child("subPathExpr"), m.SubPathExpr, "subPath and subPathExpr exclude each other")
		}
		v.relative(path.Child("subPath"), m.SubPath)
		v.relative(path.Child("subPathExpr"), m.SubPathExpr)
		v.propagation(c, m, path)
		for j, o := range m.BindMountOptions {
			oneOf(v, path.Child("bindMountOptions").Index(j), o, "noexec", "nodev", "nosuid")
		}
		if len(m.BindMountOptions) > 0 && vol != nil && vol.Image != nil {
			v.forbidden(path.Child("bindMountOptions"), "are not for image volumes")
		}
	}
	if len(c.VolumeDevices) > 0 {
		v.forbidden(c.path.Child("volumeDevices"), "need a PersistentVolumeClaim, which a static pod cannot have")
	}
}

func (v *validator) propagation(c place, m *corev1.VolumeMount, path *field.Path) {
	mode := ptr.Deref(m.MountPropagation, corev1.MountPropagationNone)
	oneOf(v, path.Child("mountPropagation"), mode, corev1.MountPropagationNone, corev1.MountPropagationHostToContainer, corev1.MountPropagationBidirectional)
	if mode == corev1.MountPropagationBidirectional && !privileged(c.SecurityContext) {
		v.forbidden(path.Child("mountPropagation"), "Bidirectional is only for privileged containers")
	}
	if m.RecursiveReadOnly == nil {
		return
	}
	oneOf(v, path.Child("recursiveReadOnly"), *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled)
	if *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return
	}
	if !m.ReadOnly {
		v.forbidden(path.Child("recursiveReadOnly"), "needs readOnly: true")
	}
	if mode != corev1.MountPropagationNone {
		v.forbidden(path.Child("recursiveReadOnly"), "needs mountPropagation None")
	}
}

// restart checks who is started again, and what follows from it.
func (v *validator) restart(c place) {
	path := c.path.Child("restartPolicy")
	if c.RestartPolicy != nil {
		oneOf(v, path, *c.RestartPolicy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyOnFailure, corev1.ContainerRestartPolicyNever)
	}
	rules := c.path.Child("restartPolicyRules")
	switch {
	case len(c.RestartPolicyRules) == 0:
	case c.RestartPolicy == nil:
		v.required(path, "restartPolicyRules need a restartPolicy of the same container")
	case c.sidecar():
		v.forbidden(rules, "a sidecar is always restarted")
	case len(c.RestartPolicyRules) > 20:
		v.add(field.TooMany(rules, len(c.RestartPolicyRules), 20))
	}
	for i := range c.RestartPolicyRules {
		r, path := &c.RestartPolicyRules[i], rules.Index(i)
		oneOf(v, path.Child("action"), r.Action, corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		if r.ExitCodes == nil {
			v.required(path.Child("exitCodes"), "")
			continue
		}
		codes := path.Child("exitCodes")
		oneOf(v, codes.Child("operator"), r.ExitCodes.Operator, corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(r.ExitCodes.Values); n == 0 {
			v.required(codes.Child("values"), "")
		} else if n > 255 {
			v.add(field.TooMany(codes.Child("values"), n, 255))
		}
		for j, code := range r.ExitCodes.Values {
			if slices.Contains(r.ExitCodes.Values[:j], code) {
				v.add(field.Duplicate(codes.Child("values").Index(j), code))
			}
			if code < 0 || code > 255 {
				v.invalid(codes.Child("values").Index(j), code, "must be between 0 and 255")
			}
		}
	}
}
