package cri

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCgroupOptions(t *testing.T) {
	for name, c := range map[string]struct {
		reason, mountinfo string
		want              []string
	}{
		"Both": {
			"systemd mounts it so, and a privileged container must not change that",
			"24 1 0:22 / /proc rw - proc proc rw\n35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			[]string{"nsdelegate", "memory_recursiveprot"},
		},
		"Plain":  {"there is nothing to keep", "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", nil},
		"Hybrid": {"the container's mount is of version 1", "35 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n", nil},
		"Odd":    {"a line that cannot be read is none of ours", "35\n\n - \n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mountinfo")
			if err := os.WriteFile(path, []byte(c.mountinfo), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := cgroupOptions(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", c.reason, diff)
			}
		})
	}
}
