package cri

import (
	"context"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// Planned stands in a plan for what only a running pod has.
const Planned = "<id>"

// PlanSpec is the spec that StartContainer would use, without running anything or
// asking containerd. What only the image knows is what an image without
// configuration would give: no environment, the root directory and user, and its
// entry point by name.
func PlanSpec(cfg Config, hostname string, c ContainerConfig) (*specs.Spec, error) {
	r := &Runtime{cfg: cfg}
	sandbox := r.namespacePaths(c.Pod)
	sandbox.Hostname = hostname
	c.Image = Image{Name: c.Container.Image}
	c.Image.Config.Entrypoint = []string{"<entry point of " + c.Container.Image + ">"}
	pod, own := ptr.Deref(c.Pod.Spec.SecurityContext, corev1.PodSecurityContext{}), ptr.Deref(c.Container.SecurityContext, corev1.SecurityContext{})
	user := userString("", first(own.RunAsUser, pod.RunAsUser), first(own.RunAsGroup, pod.RunAsGroup))
	r.users.put(userKey(&c, user), numericUser(user))
	if first(own.RunAsUser, pod.RunAsUser) == nil && ptr.Deref(first(own.RunAsNonRoot, pod.RunAsNonRoot), false) {
		c.Pod, c.Container = c.Pod.DeepCopy(), c.Container.DeepCopy()
		c.Pod.Spec.SecurityContext, c.Container.SecurityContext = &pod, &own // the image decides when it is there
		c.Pod.Spec.SecurityContext.RunAsNonRoot, c.Container.SecurityContext.RunAsNonRoot = nil, nil
	}
	s, err := r.spec(context.Background(), &sandbox, &c, Planned)
	if err != nil {
		return nil, err
	}
	if ptr.Deref(c.Pod.Spec.ShareProcessNamespace, false) {
		for i := range s.Linux.Namespaces {
			if n := &s.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
				n.Path = "/proc/<init of the pod>/ns/pid"
			}
		}
	}
	return s, nil
}

// numericUser reads UID[:GID].
func numericUser(user string) specs.User {
	uid, gid, _ := strings.Cut(user, ":")
	return specs.User{UID: number(uid), GID: number(gid)}
}

// number reads an ID that the pod gives, or nothing; what is out of range is for
// checkUser to refuse.
func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
