package podsource

import (
	"regexp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// probes checks probes and hooks. An init container that is no sidecar ends by
// itself and has neither.
func (v *validator) probes(c place) {
	kinds := []struct {
		name  string
		probe *corev1.Probe
	}{{"livenessProbe", c.LivenessProbe}, {"readinessProbe", c.ReadinessProbe}, {"startupProbe", c.StartupProbe}}
	for _, k := range kinds {
		path := c.path.Child(k.name)
		switch {
		case k.probe == nil:
		case c.init && !c.sidecar():
			v.forbidden(path, "only for init containers with restartPolicy Always")
		default:
			v.probe(path, k.probe, k.name == "readinessProbe")
		}
	}
	if c.Lifecycle == nil {
		return
	}
	path := c.path.Child("lifecycle")
	if c.init && !c.sidecar() {
		v.forbidden(path, "only for init containers with restartPolicy Always")
		return
	}
	v.hook(path.Child("postStart"), c.Lifecycle.PostStart)
	v.hook(path.Child("preStop"), c.Lifecycle.PreStop)
	v.stopSignal(path.Child("stopSignal"), c.Lifecycle.StopSignal)
}

func (v *validator) probe(path *field.Path, p *corev1.Probe, readiness bool) {
	v.exactlyOne(path, map[string]bool{"exec": p.Exec != nil, "httpGet": p.HTTPGet != nil, "tcpSocket": p.TCPSocket != nil, "grpc": p.GRPC != nil})
	v.exec(path.Child("exec"), p.Exec)
	v.httpGet(path.Child("httpGet"), p.HTTPGet)
	v.tcpSocket(path.Child("tcpSocket"), p.TCPSocket)
	if p.GRPC != nil {
		v.messages(path.Child("grpc", "port"), p.GRPC.Port, validation.IsValidPortNum(int(p.GRPC.Port)))
	}
	v.notNegative(path.Child("initialDelaySeconds"), int64(p.InitialDelaySeconds))
	v.notNegative(path.Child("timeoutSeconds"), int64(p.TimeoutSeconds))
	v.notNegative(path.Child("periodSeconds"), int64(p.PeriodSeconds))
	v.notNegative(path.Child("successThreshold"), int64(p.SuccessThreshold))
	v.notNegative(path.Child("failureThreshold"), int64(p.FailureThreshold))
	if !readiness && p.SuccessThreshold != 1 {
		v.invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1")
	}
	if grace := p.TerminationGracePeriodSeconds; grace != nil {
		switch {
		case readiness:
			v.forbidden(path.Child("terminationGracePeriodSeconds"), "a readiness probe ends no container")
		case *grace <= 0:
			v.invalid(path.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0")
		}
	}
}

func (v *validator) hook(path *field.Path, h *corev1.LifecycleHandler) {
	if h == nil {
		return
	}
	v.exactlyOne(path, map[string]bool{"exec": h.Exec != nil, "httpGet": h.HTTPGet != nil, "tcpSocket": h.TCPSocket != nil, "sleep": h.Sleep != nil})
	v.exec(path.Child("exec"), h.Exec)
	v.httpGet(path.Child("httpGet"), h.HTTPGet)
	v.tcpSocket(path.Child("tcpSocket"), h.TCPSocket)
	if grace := v.pod.Spec.TerminationGracePeriodSeconds; h.Sleep != nil && grace != nil && (h.Sleep.Seconds < 0 || h.Sleep.Seconds > *grace) {
		v.invalid(path.Child("sleep", "seconds"), h.Sleep.Seconds, "must be between 0 and the pod's terminationGracePeriodSeconds, %d", *grace)
	}
}

func (v *validator) exec(path *field.Path, e *corev1.ExecAction) {
	if e == nil {
		return
	}
	if len(e.Command) == 0 {
		v.required(path.Child("command"), "")
	}
	for i, s := range e.Command {
		v.noNUL(path.Child("command").Index(i), s)
	}
}

func (v *validator) httpGet(path *field.Path, h *corev1.HTTPGetAction) {
	if h == nil {
		return
	}
	v.port(path.Child("port"), h.Port)
	v.printable(path.Child("path"), h.Path)
	v.printable(path.Child("host"), h.Host)
	oneOf(v, path.Child("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for i, header := range h.HTTPHeaders {
		at := path.Child("httpHeaders").Index(i)
		v.messages(at.Child("name"), header.Name, validation.IsHTTPHeaderName(header.Name))
		v.printable(at.Child("value"), header.Value)
	}
}

func (v *validator) tcpSocket(path *field.Path, t *corev1.TCPSocketAction) {
	if t != nil {
		v.port(path.Child("port"), t.Port)
		v.printable(path.Child("host"), t.Host)
	}
}

// port is a number, or the name of one of the container's ports.
func (v *validator) port(path *field.Path, port intstr.IntOrString) {
	if port.Type == intstr.Int {
		v.messages(path, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
		return
	}
	v.messages(path, port.StrVal, validation.IsValidPortName(port.StrVal))
}

// stopSignal is a signal of the pod's operating system, which must be named.
func (v *validator) stopSignal(path *field.Path, s *corev1.Signal) {
	switch {
	case s == nil:
	case v.pod.Spec.OS == nil || v.pod.Spec.OS.Name == "":
		v.forbidden(path, "needs spec.os.name")
	case !regexp.MustCompile(`^SIG(ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|STOP|SYS|TERM|TRAP|TSTP|TTIN|TTOU|URG|USR1|USR2|VTALRM|WINCH|XCPU|XFSZ|RTMIN(\+([1-9]|1[0-5]))?|RTMAX(-([1-9]|1[0-4]))?)$`).MatchString(string(*s)):
		v.invalid(path, *s, "is not the name of a signal, such as SIGTERM")
	}
}
