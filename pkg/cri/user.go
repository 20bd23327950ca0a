package cri

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// userCache remembers what a user is in an image's passwd and group files, which
// are the same for every container of that image.
type userCache struct {
	mu    sync.Mutex // guards users
	users map[string]specs.User
}

func (c *userCache) get(key string) (specs.User, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.users[key]
	u.AdditionalGids = slices.Clone(u.AdditionalGids)
	return u, ok
}

func (c *userCache) put(key string, u specs.User) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == nil || len(c.users) > 1024 {
		c.users = map[string]specs.User{}
	}
	u.AdditionalGids = slices.Clone(u.AdditionalGids)
	c.users[key] = u
}

// specUser sets user and groups from the security contexts and the image.
func (r *Runtime) specUser(ctx context.Context, s *specs.Spec, cfg *ContainerConfig, id string) error {
	pod, own := ptr.Deref(cfg.Pod.Spec.SecurityContext, corev1.PodSecurityContext{}), ptr.Deref(cfg.Container.SecurityContext, corev1.SecurityContext{})
	user := userString(cfg.Image.Config.User, first(own.RunAsUser, pod.RunAsUser), first(own.RunAsGroup, pod.RunAsGroup))
	if err := checkUser(user); err != nil {
		return err
	}
	strict := groupsAreStrict(cfg.Pod)
	key := userKey(cfg, user)
	resolved, known := r.users.get(key)
	if !known {
		record := &containers.Container{ID: id, Snapshotter: r.cfg.Snapshotter, SnapshotKey: id}
		options := []oci.SpecOpts{oci.WithUser(user)}
		if name, _, _ := strings.Cut(user, ":"); !strict {
			options = append(options, oci.WithAdditionalGIDs(name))
		}
		for _, o := range options {
			if err := o(ctx, r.client, record, s); err != nil {
				return fmt.Errorf("user %q: %w", user, err)
			}
		}
		resolved = s.Process.User
		r.users.put(key, resolved)
	}
	groups := pod.SupplementalGroups
	if pod.FSGroup != nil {
		groups = append(slices.Clone(groups), *pod.FSGroup)
	}
	for _, g := range groups {
		if g < 0 || g > math.MaxInt32 {
			return fmt.Errorf("supplemental group %d is out of range", g)
		}
		resolved.AdditionalGids = append(resolved.AdditionalGids, uint32(g))
	}
	slices.Sort(resolved.AdditionalGids)
	resolved.AdditionalGids = slices.Compact(resolved.AdditionalGids)
	s.Process.User = resolved
	if ptr.Deref(first(own.RunAsNonRoot, pod.RunAsNonRoot), false) && resolved.UID == 0 {
		return fmt.Errorf("user %q is root, and the pod has runAsNonRoot", user)
	}
	return nil
}

// userOf is who the process of a spec runs as.
func userOf(s *specs.Spec) *corev1.LinuxContainerUser {
	if s.Process == nil {
		return nil
	}
	u := &corev1.LinuxContainerUser{UID: int64(s.Process.User.UID), GID: int64(s.Process.User.GID)}
	for _, g := range s.Process.User.AdditionalGids {
		u.SupplementalGroups = append(u.SupplementalGroups, int64(g))
	}
	return u
}

// userKey is what decides who a user is.
func userKey(cfg *ContainerConfig, user string) string {
	return fmt.Sprintf("%s %s %t", cfg.Image.ChainID, user, groupsAreStrict(cfg.Pod))
}

// groupsAreStrict says whether the image's group file does not count.
func groupsAreStrict(pod *corev1.Pod) bool {
	sc := ptr.Deref(pod.Spec.SecurityContext, corev1.PodSecurityContext{})
	return ptr.Deref(sc.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge) == corev1.SupplementalGroupsPolicyStrict
}

// first is the container's value, else the pod's.
func first[T any](own, pod *T) *T {
	if own != nil {
		return own
	}
	return pod
}

// userString is what runs the container, in the image's notation.
func userString(image string, uid, gid *int64) string {
	user := image
	if uid != nil {
		user = strconv.FormatInt(*uid, 10)
	}
	if user == "" {
		user = "0"
	}
	if gid != nil {
		name, _, _ := strings.Cut(user, ":")
		user = name + ":" + strconv.FormatInt(*gid, 10)
	}
	return user
}

// checkUser refuses numbers that would wrap around to another user.
func checkUser(user string) error {
	for part := range strings.SplitSeq(user, ":") {
		if part == "" || strings.Trim(part, "0123456789+-") != "" {
			continue // a name, which passwd decides
		}
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt32 {
			return fmt.Errorf("user %q: IDs are between 0 and %d", user, math.MaxInt32)
		}
	}
	return nil
}
