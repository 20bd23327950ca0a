package stats

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// disks is what takes long to find out, and so is not read each time.
type disks struct {
	time   time.Time
	layers map[string]cri.LayerUsage // by container
	images uint64
	dir    string // of the images
}

// readDisks counts what containers have written. The caller holds turn.
func (r *Reader) readDisks(ctx context.Context, s *Sample) *disks {
	if r.disk != nil && s.Time.Sub(r.disk.time) < diskLife && r.disk.covers(s) {
		return r.disk
	}
	d := &disks{time: s.Time, layers: map[string]cri.LayerUsage{}}
	for _, p := range s.Pods {
		for _, c := range p.Containers {
			if u, err := r.cfg.Layer(ctx, c.ID); err == nil { // it may have just ended
				d.layers[c.ID] = u
			}
		}
	}
	if dir, bytes, err := r.cfg.Images(ctx); err == nil {
		d.dir, d.images = dir, bytes
	}
	if ctx.Err() == nil { // else it is not complete
		r.disk = d
	}
	return d
}

// covers says whether d knows a sample's containers.
func (d *disks) covers(s *Sample) bool {
	for _, p := range s.Pods {
		for _, c := range p.Containers {
			if _, ok := d.layers[c.ID]; !ok {
				return false
			}
		}
	}
	return true
}

// fileSystem is the one that dir is on; nil when it cannot be asked.
func fileSystem(dir string, now time.Time) *statsapi.FsStats {
	var st unix.Statfs_t
	if dir == "" || unix.Statfs(dir, &st) != nil {
		return nil
	}
	block := uint64(st.Bsize) //nolint:gosec // never negative
	return &statsapi.FsStats{
		Time: metav1.NewTime(now), CapacityBytes: new(st.Blocks * block), AvailableBytes: new(st.Bavail * block), UsedBytes: new((st.Blocks - st.Bfree) * block),
		Inodes: new(st.Files), InodesFree: new(st.Ffree), InodesUsed: new(st.Files - st.Ffree),
	}
}

// share is what somebody uses of a file system.
func share(of *statsapi.FsStats, bytes, inodes uint64) *statsapi.FsStats {
	if of == nil {
		return nil
	}
	out := *of
	out.UsedBytes, out.InodesUsed = new(bytes), new(inodes)
	return &out
}

// filesIn sums up the files right in a directory: logs have none below.
func filesIn(dir string) (bytes, inodes uint64) {
	if dir == "" {
		return 0, 0
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0
	}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil {
			bytes += uint64(st.Blocks) * 512 //nolint:gosec // never negative
			inodes++
		}
	}
	return bytes, inodes
}
