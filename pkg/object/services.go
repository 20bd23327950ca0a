package object

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Services are the environment variables by which a pod finds the API server and,
// unless it does not want to, the services of its namespace. Their state is that
// of now; it is an error as long as nobody has said what services there are.
func (s *Store) Services(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	wanted, err := s.lookUp(ctx, pod, apiServer())
	if err != nil {
		return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars: %w", err)
	}
	if ptr.Deref(pod.Spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks) {
		own, err := s.lookUp(ctx, pod, key{kind: services, namespace: pod.Namespace})
		if err != nil {
			return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars: %w", err)
		}
		wanted = maps.Clone(wanted)
		maps.Copy(wanted, own) // the namespace's own comes first, whatever its name
	}
	return environment(wanted), nil
}

// environment is what containers have been told of services since there was no DNS.
func environment(services map[string]metav1.Object) map[string]string {
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		svc := services[name].(*corev1.Service)
		if ip := svc.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone && len(svc.Spec.Ports) > 0 {
			addService(out, svc)
		}
	}
	return out
}

func addService(out map[string]string, svc *corev1.Service) {
	prefix := variable(svc.Name)
	ip, ports := svc.Spec.ClusterIP, svc.Spec.Ports
	out[prefix+"_SERVICE_HOST"] = ip
	out[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(ports[0].Port))
	for i := range ports {
		p := &ports[i]
		number := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			out[prefix+"_SERVICE_PORT_"+variable(p.Name)] = number
		}
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		url := strings.ToLower(string(protocol)) + "://" + net.JoinHostPort(ip, number)
		if i == 0 {
			out[prefix+"_PORT"] = url
		}
		link := prefix + "_PORT_" + number + "_" + strings.ToUpper(string(protocol))
		out[link] = url
		out[link+"_PROTO"] = strings.ToLower(string(protocol))
		out[link+"_PORT"] = number
		out[link+"_ADDR"] = ip
	}
}

// variable is a name as environment variables have it.
func variable(name string) string {
	return strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
