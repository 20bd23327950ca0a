package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// criticalPriority is where pods begin that nothing evicts.
const criticalPriority = 2_000_000_000

// Limits looks after the sizeLimit of emptyDir volumes on disk, which no file
// system enforces. Those in memory are enforced by the kernel.
type Limits struct {
	Set *Set
	// Pods are all that should run.
	Pods func() []*corev1.Pod
	// Evict ends a pod for good. It is called once.
	Evict func(pod *corev1.Pod, message string)
	// Every is how often everything is measured; 0 is the kubelet's 10 s.
	Every time.Duration
}

// Run measures until ctx ends.
func (l *Limits) Run(ctx context.Context) error {
	every := l.Every
	if every <= 0 {
		every = 10 * time.Second
	}
	evicted := map[types.UID]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
			evicted = l.look(ctx, evicted)
		}
	}
}

// look evicts what is over its limit and was not evicted before.
func (l *Limits) look(ctx context.Context, before map[types.UID]bool) map[types.UID]bool {
	evicted := map[types.UID]bool{}
	for _, pod := range l.Pods() {
		if before[pod.UID] {
			evicted[pod.UID] = true
			continue
		}
		if message := l.Set.overLimit(ctx, pod); message != "" {
			evicted[pod.UID] = true
			l.Evict(pod, message)
		}
	}
	return evicted
}

// overLimit says, in the kubelet's words, which volume of a pod is over its limit.
func (s *Set) overLimit(ctx context.Context, pod *corev1.Pod) string {
	if p := pod.Spec.Priority; p != nil && *p >= criticalPriority {
		return ""
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		e := v.EmptyDir
		if e == nil || e.Medium != corev1.StorageMediumDefault || e.SizeLimit == nil || e.SizeLimit.Sign() <= 0 {
			continue
		}
		used, err := diskUsage(ctx, s.dir(pod.UID, "empty-dir", v.Name), e.SizeLimit.Value())
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("usage of a volume is not known", "pod", pod.Name, "uid", pod.UID, "volume", v.Name, "err", err)
		}
		if used > e.SizeLimit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, e.SizeLimit.String())
		}
	}
	return ""
}

// diskUsage counts the bytes that a directory occupies, and stops once it is more
// than enough. A directory that does not exist has none.
func diskUsage(ctx context.Context, dir string, enough int64) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", dir, err)
	}
	u := &usage{enough: enough, linked: map[uint64]bool{}}
	err = u.add(ctx, os.NewFile(uintptr(fd), dir))
	return u.bytes, err
}

// usage sums up a tree that others change meanwhile. It never follows a link and
// never enters another mount.
type usage struct {
	bytes, enough int64
	linked        map[uint64]bool // inodes with several names, which count once
}

// add counts what is in an open directory and closes it.
func (u *usage) add(ctx context.Context, dir *os.File) error {
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil || u.bytes > u.enough {
				return err
			}
			if err := u.addOne(ctx, dir, name); err != nil {
				return err
			}
		}
	}
}

func (u *usage) addOne(ctx context.Context, dir *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreGone(err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && st.Nlink > 1 {
		if u.linked[st.Ino] {
			return nil
		}
		u.linked[st.Ino] = true
	}
	u.bytes += st.Blocks * 512
	if !isDir {
		return nil
	}
	fd, err := openDirAt(dir, name)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil // a mount, or gone, or something else by now
	case err != nil:
		return fmt.Errorf("open %s/%s: %w", dir.Name(), name, err)
	}
	return u.add(ctx, fd)
}
