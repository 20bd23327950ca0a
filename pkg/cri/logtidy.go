package cri

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// rotatedTime is how the kubelet names rotated files: <path>.<time>.
	rotatedTime   = "20060102-150405"
	stampFraction = ".000000000"
	gzSuffix      = ".gz"
	tmpSuffix     = ".tmp"
)

// rotationStamp is the time in the name of a rotated file of log, or empty if it
// is none: files of others are none of our business.
func rotationStamp(name, log string) string {
	stamp, ok := strings.CutPrefix(strings.TrimSuffix(name, gzSuffix), log+".")
	if _, err := time.Parse(rotatedTime, stamp); !ok || err != nil {
		return ""
	}
	return stamp
}

// nextStamp is a time that sorts behind last. Only if the second is taken does it
// have a fraction, unlike a kubelet's, and only if the clock was set back is it
// not the time.
func nextStamp(now time.Time, last string) string {
	if s := now.Format(rotatedTime); s > last {
		return s
	}
	if s := now.Format(rotatedTime + stampFraction); s > last {
		return s
	}
	at, err := time.Parse(rotatedTime, last) // accepts a fraction
	if err != nil {
		return now.Format(rotatedTime + stampFraction)
	}
	return at.Add(time.Nanosecond).Format(rotatedTime + stampFraction)
}

// rotatedLogs lists the names of a log's rotated files, oldest first. A file that
// is there twice, because compressing it was interrupted, is listed compressed.
func rotatedLogs(dir *os.File, log string) ([]string, error) {
	// A directory that was read before stays at its end.
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	rotated := slices.DeleteFunc(all, func(n string) bool { return rotationStamp(n, log) == "" })
	slices.SortFunc(rotated, func(a, b string) int {
		return cmp.Or(strings.Compare(rotationStamp(a, log), rotationStamp(b, log)), -strings.Compare(a, b))
	})
	return slices.CompactFunc(rotated, func(a, b string) bool { return a == b+gzSuffix }), nil
}

// tidyLogs leaves at most maxFiles files of a log, the current one included, and
// compresses all but the newest two, as a kubelet does: log shippers may still
// read the file that was rotated last.
func tidyLogs(ctx context.Context, path string, maxFiles int) error {
	dir, err := openLogDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	rotated, err := rotatedLogs(dir, filepath.Base(path))
	if err != nil {
		return err
	}
	for len(rotated) > max(maxFiles, 2)-1 {
		old := strings.TrimSuffix(rotated[0], gzSuffix)
		if err := errors.Join(removeAt(dir, old), removeAt(dir, old+gzSuffix), removeAt(dir, old+tmpSuffix)); err != nil {
			return err
		}
		rotated = rotated[1:]
	}
	for i, name := range rotated {
		plain, compressed := strings.CutSuffix(name, gzSuffix)
		switch {
		case ctx.Err() != nil:
			return nil // the next rotation goes on
		case compressed:
			err = removeAt(dir, plain)
		case i < len(rotated)-1:
			err = compress(ctx, dir, name)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("compress %s: %w", filepath.Join(filepath.Dir(path), name), err)
		}
	}
	return nil
}

// compress replaces name in dir by name.gz. Until that is whole and on disk it
// has another name, and the time of its last line is kept.
func compress(ctx context.Context, dir *os.File, name string) error {
	in, info, err := openPlain(dir, name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := name + tmpSuffix
	if err := removeAt(dir, tmp); err != nil {
		return err
	}
	out, _, err := openPlain(dir, tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	defer out.Close()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	z.ModTime = info.ModTime()
	if _, err := io.Copy(z, readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return in.Read(p)
	})); err != nil {
		return errors.Join(err, removeAt(dir, tmp))
	}
	if err := errors.Join(z.Close(), out.Chmod(logFileMode), out.Sync(), setModTime(out, info)); err != nil {
		return errors.Join(err, removeAt(dir, tmp))
	}
	return errors.Join(at(dir, func(fd int) error { return unix.Renameat(fd, tmp, fd, name+gzSuffix) }), removeAt(dir, name))
}

// readerFunc makes a Reader of a function.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func setModTime(f *os.File, info os.FileInfo) error {
	t, err := unix.TimeToTimespec(info.ModTime())
	if err != nil {
		return err
	}
	return at(f, func(fd int) error {
		return unix.UtimesNanoAt(fd, "", []unix.Timespec{t, t}, unix.AT_EMPTY_PATH)
	})
}

// at calls fn with f's descriptor.
func at(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) { err = fn(int(fd)) })
	return errors.Join(err, ctlErr)
}

// removeAt removes name in dir; it may be gone already.
func removeAt(dir *os.File, name string) error {
	err := at(dir, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", filepath.Join(dir.Name(), name), err)
	}
	return nil
}

// removeLogs removes a log with its rotated files.
func removeLogs(path string) error {
	if path == "" {
		return nil
	}
	dir, err := openLogDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	errs := []error{err}
	for _, n := range names {
		if n == filepath.Base(path) || strings.HasPrefix(n, filepath.Base(path)+".") {
			errs = append(errs, removeAt(dir, n))
		}
	}
	return errors.Join(errs...)
}

// removeEmptyLogDirs removes a pod's log directory and those of its containers,
// except where a log was kept: with every edit of a manifest a pod has a new one.
func removeEmptyLogDirs(pod string) error {
	containers, err := os.ReadDir(pod)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	dirs := []string{pod}
	for _, c := range containers {
		if c.IsDir() {
			dirs = append(dirs, filepath.Join(pod, c.Name()))
		}
	}
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove log directory %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}
