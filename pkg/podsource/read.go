package podsource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile is the kubelet's limit for a manifest file.
const maxFile = 10 << 20

// counts says whether a file of this name may be a manifest. Backups of editors
// are left out: they sort after the file they are of, and so would win over it.
func counts(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, "~") && (!strings.HasPrefix(name, "#") || !strings.HasSuffix(name, "#"))
}

// list names the manifests at path, in order. A path that does not exist has none.
func list(path string) (paths []string, exists bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	case info.Mode().IsRegular():
		return []string{path}, true, nil
	case !info.IsDir():
		return nil, false, errors.New("is neither a directory nor a regular file")
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		if counts(e.Name()) {
			paths = append(paths, filepath.Join(path, e.Name()))
		}
	}
	return paths, true, nil
}

// stamp tells one state of a file from another without reading it. The time of
// the last change of the inode is part of it, which nobody can set.
type stamp struct {
	device, inode  uint64
	size           int64
	modified, when time.Time
}

// errGone says that a file is not there any more.
var errGone = errors.New("file is gone")

// stat looks at a file without opening it: opening a FIFO wakes its writer, and
// opening a device can do anything.
func stat(path string) (stamp, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err != nil {
			return stamp{}, errGone
		}
		return stamp{}, errors.New("is a symbolic link to a file that does not exist")
	}
	if err != nil {
		return stamp{}, unwrapPath(err)
	}
	return stampOf(info)
}

func stampOf(info fs.FileInfo) (stamp, error) {
	switch {
	case info.IsDir():
		return stamp{}, errors.New("is a directory: manifests are read from the top level only")
	case !info.Mode().IsRegular():
		return stamp{}, fmt.Errorf("is not a regular file (%s)", info.Mode().Type())
	case info.Size() > maxFile:
		return stamp{}, fmt.Errorf("has %d bytes: a manifest has at most %d", info.Size(), maxFile)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}, errors.New("stat without an inode")
	}
	return stamp{uint64(st.Dev), st.Ino, st.Size, time.Unix(st.Mtim.Unix()), time.Unix(st.Ctim.Unix())}, nil
}

// read returns the content of a file that was just looked at, and its state after
// reading, which is another one if somebody wrote to it meanwhile.
func read(path string) ([]byte, stamp, error) {
	// Should it have become a FIFO since, this does not wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, stamp{}, errGone
	}
	if err != nil {
		return nil, stamp{}, unwrapPath(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, stamp{}, unwrapPath(err)
	}
	if _, err := stampOf(info); err != nil {
		return nil, stamp{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, stamp{}, unwrapPath(err)
	}
	if info, err = f.Stat(); err != nil {
		return nil, stamp{}, unwrapPath(err)
	}
	after, err := stampOf(info)
	return data, after, err
}

// bornComplete says of a file whether it appears with all its content: a link
// does, and nobody tells the end of its writing.
func bornComplete(path string) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode()&fs.ModeSymlink != 0 || ok && st.Nlink > 1
}

// unwrapPath drops the path from an error that is reported with it anyway.
func unwrapPath(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", pe.Op, pe.Err)
	}
	return err
}
