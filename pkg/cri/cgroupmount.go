package cri

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// cgroupOptions are the options of the machine's cgroup2 that a mount outside of
// a cgroup namespace has to repeat: the file system is the same one, and mounting
// it without them takes them from the whole machine.
func cgroupOptions(mountinfo string) ([]string, error) {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("read the options of cgroup2: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		mount, super, _ := strings.Cut(line, " - ")
		at, of := strings.Fields(mount), strings.Fields(super)
		if len(at) < 5 || len(of) < 3 || at[4] != "/sys/fs/cgroup" || of[0] != "cgroup2" {
			continue
		}
		var out []string
		for o := range strings.SplitSeq(of[2], ",") {
			if slices.Contains([]string{"nsdelegate", "memory_recursiveprot"}, o) {
				out = append(out, o)
			}
		}
		return out, nil
	}
	return nil, nil
}
