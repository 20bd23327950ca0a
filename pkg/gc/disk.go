package gc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// DiskOf looks at the file system that path is on. As for a user who is not
// root, what is reserved is not available.
func DiskOf(path string) (Disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Disk{}, fmt.Errorf("look at the file system of %s: %w", path, err)
	}
	size := uint64(s.Bsize)
	return Disk{Capacity: s.Blocks * size, Available: s.Bavail * size}, nil
}
