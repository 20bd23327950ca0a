package cri

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// logFile is the log of one attempt. Both streams append whole records to it, one
// write each, so that a reader never sees two records mixed.
//
// A full file is renamed to <path>.<time> at a record's end and a new one opened.
// What is slow about rotation, compressing and removing, is tidyLogs' work.
type logFile struct {
	path    string // empty: output is not wanted
	maxSize int64  // bytes; 0 or less: never rotated
	report  *slog.Logger
	// rotated is told after each rotation, and must not block.
	rotated func()

	// mu guards all below. It is what serialises the two streams, so it is held
	// while writing.
	mu     sync.Mutex
	file   *os.File
	size   int64
	failed bool // the last write failed; reported once
}

// open makes the file be there, also when nothing is ever printed.
func (l *logFile) open() error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reopen()
}

// append writes whole records. A log that cannot be written must not stop the
// container: what fails is reported once and dropped.
func (l *logFile) append(records []byte) {
	if l.path == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.write(records)
	if err != nil && !l.failed {
		l.report.Error("container log cannot be written; lines are lost", "path", l.path, "err", err)
	}
	l.failed = err != nil
}

// write appends records and rotates a file that is full. The caller holds mu.
func (l *logFile) write(records []byte) error {
	if err := l.ensure(); err != nil {
		return err
	}
	n, err := l.file.Write(records)
	if err != nil {
		// Half a record must not stay: the next one would continue its line.
		if n > 0 {
			err = errors.Join(err, l.file.Truncate(l.size))
		}
		return err
	}
	l.size += int64(n)
	if l.maxSize > 0 && l.size >= l.maxSize {
		return l.rotate()
	}
	return nil
}

// ensure opens the file if it is not open, or if someone has removed or emptied
// it: what is written to a file without a name nobody can read. The caller holds mu.
func (l *logFile) ensure() error {
	if l.file == nil {
		return l.reopen()
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	l.size = info.Size()
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Nlink > 0 {
		return nil
	}
	err = l.file.Close()
	l.file = nil
	return errors.Join(err, l.reopen())
}

// reopen opens the file for appending and cuts off a record that was half
// written when the machine or the agent went down: its bytes are still in the
// FIFO, or lost. The caller holds mu.
func (l *logFile) reopen() error {
	if err := makeLogDir(l.path); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	dir, err := openLogDir(l.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, info, err := openPlain(dir, filepath.Base(l.path), os.O_RDWR|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return err
	}
	size, err := wholeRecords(f, info.Size())
	if err == nil && size < info.Size() {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Chmod(logFileMode)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, size
	return nil
}

// wholeRecords is the size of f without an unfinished last line.
func wholeRecords(f io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 4096)
	for end := size; end > 0; {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

// rotate moves the current file away. The caller holds mu.
func (l *logFile) rotate() error {
	dir, err := openLogDir(l.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = moveAway(dir, filepath.Base(l.path), time.Now())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate %s: %w", l.path, err)
	}
	old := l.file
	l.file = nil
	if err := errors.Join(l.reopen(), old.Close()); err != nil {
		return err
	}
	l.rotated()
	return nil
}

// moveAway renames a full log, as the kubelet does, to <name>.<time>.
func moveAway(dir *os.File, name string, now time.Time) error {
	rotated, err := rotatedLogs(dir, name)
	if err != nil {
		return err
	}
	var last string
	if len(rotated) > 0 {
		last = rotationStamp(rotated[len(rotated)-1], name)
	}
	to := name + "." + nextStamp(now, last)
	return at(dir, func(fd int) error { return unix.Renameat2(fd, name, fd, to, unix.RENAME_NOREPLACE) })
}

// close closes the file; a later write opens it again.
func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
