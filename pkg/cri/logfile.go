package cri

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// rotatedTime is how the kubelet names rotated files: <path>.<time>.
const rotatedTime = "20060102-150405"

// logFile is the log of one attempt; both streams write to it.
type logFile struct {
	path     string
	maxSize  int64 // bytes; 0 means no rotation
	maxFiles int   // including the current one
	report   *slog.Logger

	mu     sync.Mutex // guards all below
	file   *os.File
	size   int64
	failed bool // the last write failed; reported once
}

// write appends whole records. A log that cannot be written must not stop the
// container: what fails is reported once and dropped.
func (l *logFile) write(records []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.append(records)
	if err != nil && !l.failed {
		l.report.Error("container log cannot be written; lines are lost", "path", l.path, "err", err)
	}
	l.failed = err != nil
}

func (l *logFile) append(records []byte) error {
	if l.file != nil && l.maxSize > 0 && l.size+int64(len(records)) > l.maxSize && l.size > 0 {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(records)
	l.size += int64(n)
	return err
}

func (l *logFile) open() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_RDWR|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	size, err := cutTorn(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, size
	return nil
}

// cutTorn removes a record whose end is missing: a process that is killed while
// it writes leaves one. Its bytes are still in the FIFO and come again. It
// returns the size that is left.
func cutTorn(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	for end := size; end > 0; {
		buf := make([]byte, min(end, 4096))
		if _, err := f.ReadAt(buf, end-int64(len(buf))); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf, '\n'); i >= 0 {
			whole := end - int64(len(buf)) + int64(i) + 1
			if whole == size {
				return size, nil
			}
			return whole, f.Truncate(whole)
		}
		end -= int64(len(buf))
	}
	return 0, f.Truncate(0)
}

// rotate moves the current file away and removes the oldest.
func (l *logFile) rotate() error {
	if err := l.file.Close(); err != nil {
		return err
	}
	l.file = nil
	to := l.path + "." + time.Now().Format(rotatedTime)
	for i := 1; exists(to); i++ { // more than one in a second
		to = fmt.Sprintf("%s.%s.%d", l.path, time.Now().Format(rotatedTime), i)
	}
	if err := os.Rename(l.path, to); err != nil {
		return err
	}
	old, err := rotatedLogs(l.path)
	if err != nil {
		return err
	}
	for len(old) > max(l.maxFiles-1, 0) {
		if err := os.Remove(old[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		old = old[1:]
	}
	return nil
}

// Close closes the file; a later write opens it again.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// rotatedLogs lists the rotated files of a log, oldest first.
func rotatedLogs(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			out = append(out, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(out) // the names begin with the time
	return out, nil
}

// removeLogs removes a log with its rotated files.
func removeLogs(path string) error {
	old, err := rotatedLogs(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, f := range append(old, path) {
		if err := os.Remove(f); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// logLink is the path under which log shippers look for a container's log.
func logLink(dir string, p *podState, c *Container) string {
	name := fmt.Sprintf("%s_%s_%s-%s", p.name, p.namespace, c.Name, c.ID)
	if len(name) > 251 {
		name = name[:251]
	}
	return filepath.Join(dir, name+".log")
}

func makeLogLink(dir string, p *podState, c *Container) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := os.Symlink(c.LogPath, logLink(dir, p, c))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func removeLogLink(dir string, p *podState, c *Container) error {
	err := os.Remove(logLink(dir, p, c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// openRegular opens a file that others may have put there: it follows no link
// and accepts nothing but a regular file.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
