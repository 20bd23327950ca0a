package cri

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// specOf is the spec of a container that change has made different from an
// ordinary one. Its image runs /bin/app serve as root in /srv.
func specOf(t *testing.T, change func(*ContainerConfig)) (*specs.Spec, error) {
	t.Helper()
	cfg := ContainerConfig{
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "uid-web"}},
		Container: &corev1.Container{
			Name: "main", SecurityContext: &corev1.SecurityContext{}, TerminationMessagePath: "/dev/termination-log",
		},
		Image: Image{Name: "docker.io/test/app:1", ChainID: "sha256:c", Config: ocispec.ImageConfig{
			Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"}, WorkingDir: "/srv", Env: []string{"A=image", "B=image"},
		}},
		CgroupsPath: func(id string) string { return "/kubepods/poduid-web/" + id },
		OOMScoreAdj: 1000,
	}
	cfg.Pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
	change(&cfg)
	r := &Runtime{cfg: Config{StateDir: "/run/x"}}
	r.users.put(userKey(&cfg, "0"), specs.User{AdditionalGids: []uint32{0, 10}}) // or the image would be mounted
	r.users.put(userKey(&cfg, "1000:2000"), specs.User{UID: 1000, GID: 2000, AdditionalGids: []uint32{2000}})
	return r.spec(t.Context(), &Sandbox{
		Hostname: "web", NetNS: "/run/x/net", IPCNS: "/run/x/ipc", UTSNS: "/run/x/uts",
	}, &cfg, "id")
}

func TestSpec(t *testing.T) {
	for name, c := range map[string]struct {
		reason string
		change func(*ContainerConfig)
		got    func(*specs.Spec) any
		want   any
	}{
		"ImageCommand": {
			"the image says what runs", func(*ContainerConfig) {},
			func(s *specs.Spec) any { return s.Process.Args }, []string{"/bin/app", "serve"},
		},
		"OpenFiles": {
			"a container's limit does not depend on how containerd was started", func(*ContainerConfig) {},
			func(s *specs.Spec) any {
				return len(s.Process.Rlimits) == 1 && s.Process.Rlimits[0].Type == "RLIMIT_NOFILE" && s.Process.Rlimits[0].Soft > 0
			}, true,
		},
		"ArgsOnly": {
			"args replace the image's command and not its entry point", func(c *ContainerConfig) { c.Args = []string{"help"} },
			func(s *specs.Spec) any { return s.Process.Args }, []string{"/bin/app", "help"},
		},
		"CommandOnly": {
			"with a command nothing of the image is left", func(c *ContainerConfig) { c.Command = []string{"sh"} },
			func(s *specs.Spec) any { return s.Process.Args }, []string{"sh"},
		},
		"Environment": {
			"the pod's value wins over the image's, each name once",
			func(c *ContainerConfig) { c.Env, c.Container.TTY = []string{"B=pod", "C=pod"}, true },
			func(s *specs.Spec) any { return s.Process.Env },
			[]string{defaultPath, "HOSTNAME=web", "TERM=xterm", "A=image", "B=pod", "C=pod"},
		},
		"WorkingDir": {
			"the container's directory wins", func(c *ContainerConfig) { c.Container.WorkingDir = "/tmp/../data" },
			func(s *specs.Spec) any { return s.Process.Cwd }, "/data",
		},
		"Groups": {
			"the image's groups, the pod's and the volumes', in order and once",
			func(c *ContainerConfig) {
				c.Pod.Spec.SecurityContext.SupplementalGroups, c.Pod.Spec.SecurityContext.FSGroup = []int64{3000, 10}, new(int64(2000))
			},
			func(s *specs.Spec) any { return s.Process.User.AdditionalGids }, []uint32{0, 10, 2000, 3000},
		},
		"User": {
			"the container's user wins over the pod's",
			func(c *ContainerConfig) {
				c.Pod.Spec.SecurityContext.RunAsUser = new(int64(5))
				c.Container.SecurityContext.RunAsUser, c.Container.SecurityContext.RunAsGroup = new(int64(1000)), new(int64(2000))
			},
			func(s *specs.Spec) any { return [2]uint32{s.Process.User.UID, s.Process.User.GID} }, [2]uint32{1000, 2000},
		},
		"NoCapabilities": {
			"drop ALL leaves none, in any set",
			func(c *ContainerConfig) {
				c.Container.SecurityContext.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
			},
			func(s *specs.Spec) any {
				p := s.Process.Capabilities
				return len(p.Bounding) + len(p.Effective) + len(p.Permitted) + len(p.Inheritable) + len(p.Ambient)
			}, 0,
		},
		"NoEscalation": {
			"allowPrivilegeEscalation is the kernel's no_new_privs",
			func(c *ContainerConfig) { c.Container.SecurityContext.AllowPrivilegeEscalation = new(false) },
			func(s *specs.Spec) any { return s.Process.NoNewPrivileges }, true,
		},
		"ReadOnlyRoot": {
			"the pod's own files follow the root file system",
			func(c *ContainerConfig) { c.Container.SecurityContext.ReadOnlyRootFilesystem = new(true) },
			func(s *specs.Spec) any { return []bool{s.Root.Readonly, hasOption(s, "/etc/hosts", "ro")} }, []bool{true, true},
		},
		"ProcMount": {
			"Unmasked shows all of /proc",
			func(c *ContainerConfig) {
				c.Container.SecurityContext.ProcMount = new(corev1.UnmaskedProcMount)
			},
			func(s *specs.Spec) any { return len(s.Linux.MaskedPaths) + len(s.Linux.ReadonlyPaths) }, 0,
		},
		"Privileged": {
			"a privileged container sees /sys writable, all of /proc, and every device",
			func(c *ContainerConfig) {
				c.Container.SecurityContext.Privileged = new(true)
				c.Container.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
			},
			func(s *specs.Spec) any {
				return []bool{
					hasOption(s, "/sys", "rw"), s.Linux.MaskedPaths == nil, s.Linux.Seccomp == nil,
					cmp.Equal(s.Linux.Resources.Devices, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}),
				}
			}, []bool{true, true, true, true},
		},
		"SeccompOfTheNode": {
			"a container that names none has the node's default",
			func(c *ContainerConfig) { c.SeccompDefault = true },
			func(s *specs.Spec) any { return s.Linux.Seccomp != nil }, true,
		},
		"Propagation": {
			"a mount that goes both ways needs a root that lets it",
			func(c *ContainerConfig) {
				c.Mounts = []Mount{
					{HostPath: "/a", ContainerPath: "/a", Propagation: corev1.MountPropagationHostToContainer},
					{HostPath: "/b", ContainerPath: "/b", Propagation: corev1.MountPropagationBidirectional},
				}
			},
			func(s *specs.Spec) any {
				return []any{s.Linux.RootfsPropagation, hasOption(s, "/a", "rslave"), hasOption(s, "/b", "rshared")}
			}, []any{"rshared", true, true},
		},
		"RecursiveReadOnly": {
			"mounts below the volume are read-only too",
			func(c *ContainerConfig) {
				c.Mounts = []Mount{{HostPath: "/a", ContainerPath: "/a", ReadOnly: true, RecursiveReadOnly: true}}
			},
			func(s *specs.Spec) any { return hasOption(s, "/a", "rro") }, true,
		},
		"ParentsFirst": {
			"a volume inside a volume is mounted after it, and the pod's file wins over ours",
			func(c *ContainerConfig) {
				c.Mounts = []Mount{{HostPath: "/2", ContainerPath: "/v/w"}, {HostPath: "/1", ContainerPath: "/v"}, {HostPath: "/3", ContainerPath: "/etc/hosts/"}}
			},
			func(s *specs.Spec) any {
				var out []string
				for _, m := range s.Mounts {
					if !strings.HasPrefix(m.Source, "/run/x/") && strings.HasPrefix(m.Source, "/") {
						out = append(out, m.Source)
					}
				}
				return out
			}, []string{"/1", "/2", "/3"},
		},
		"Namespaces": {
			"the pod's by path, the container's own without", func(*ContainerConfig) {},
			func(s *specs.Spec) any { return s.Linux.Namespaces },
			[]specs.LinuxNamespace{
				{Type: "ipc", Path: "/run/x/ipc"}, {Type: "mount"}, {Type: "network", Path: "/run/x/net"}, {Type: "pid"}, {Type: "uts", Path: "/run/x/uts"},
			},
		},
		"AnnotationsAreOurs": {
			"a pod's annotations never reach the runtime",
			func(c *ContainerConfig) {
				c.Pod.Annotations = map[string]string{"org.systemd.property.ExecStart": "x", "run.oci.handler": "x"}
			},
			func(s *specs.Spec) any { return s.Annotations }, map[string]string{annotationShimGroup: "uid-web"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := specOf(t, c.change)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, c.got(s)); diff != "" {
				t.Errorf("%s: -want +got:\n%s", c.reason, diff)
			}
		})
	}
}

func hasOption(s *specs.Spec, destination, option string) bool {
	for _, m := range s.Mounts {
		for _, o := range m.Options {
			if m.Destination == destination && o == option {
				return true
			}
		}
	}
	return false
}

func TestSpecRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		reason string
		change func(*ContainerConfig)
		want   string
	}{
		"NoCommand": {
			"nothing says what to run", func(c *ContainerConfig) { c.Image.Config.Entrypoint, c.Image.Config.Cmd = nil, nil }, "no command specified",
		},
		"Root": {
			"runAsNonRoot is checked against what the image would do",
			func(c *ContainerConfig) { c.Pod.Spec.SecurityContext.RunAsNonRoot = new(true) }, "runAsNonRoot",
		},
		"OverProc": {
			"the runtime relies on /proc", func(c *ContainerConfig) { c.Mounts = []Mount{{HostPath: "/a", ContainerPath: "/v/../proc/sys"}} }, "/proc",
		},
		"UnknownCapability": {
			"a misspelt one would silently be missing",
			func(c *ContainerConfig) {
				c.Container.SecurityContext.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIM"}}
			}, "NET_ADMIM",
		},
		"SeccompOutside": {
			"profiles are read from their directory only",
			func(c *ContainerConfig) {
				c.Container.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: new("../x")}
			}, "../x",
		},
		"AppArmorUnknown": {
			"a privileged container that names a profile does not run without it",
			func(c *ContainerConfig) {
				c.Container.SecurityContext.Privileged = new(true)
				c.Container.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: new("no-such-profile")}
			}, "no-such-profile",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := specOf(t, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: want an error about %q, got %v", c.reason, c.want, err)
			}
		})
	}
}
