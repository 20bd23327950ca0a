package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	logFileMode = 0o640
	logDirMode  = 0o750
	logRootMode = 0o755
)

// errUnsafeFile says that something else lies where a plain file of ours should.
var errUnsafeFile = errors.New("not a plain file of its own")

// logRoot splits a log path into the log directory of the node, which may be a
// link, and what we made below it: <pod>/<container>/<attempt>.log. A pod that
// can write there may have put links in our way, so nothing below is followed.
func logRoot(path string) (root, rel string) {
	root = filepath.Dir(filepath.Dir(filepath.Dir(path)))
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return filepath.Dir(path), filepath.Base(path)
	}
	return root, rel
}

// openBeneath opens rel below dir without following a single link.
func openBeneath(dir *os.File, rel string, flags int, mode uint64) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    mode,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	raw, err := dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	ctlErr := raw.Control(func(base uintptr) {
		for range 64 { // EAGAIN: a rename somewhere on the machine raced with the walk
			fd, err = unix.Openat2(int(base), rel, how)
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	if err := errors.Join(err, ctlErr); err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), rel), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), rel)), nil
}

// openLogDir opens the directory of a log.
func openLogDir(path string) (*os.File, error) {
	root, rel := logRoot(path)
	base, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	return openBeneath(base, filepath.Dir(rel), unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// openPlain opens name in dir if it is a regular file with no other name, and
// never waits for it.
func openPlain(dir *os.File, name string, flags int) (*os.File, os.FileInfo, error) {
	f, err := openBeneath(dir, name, flags|unix.O_NONBLOCK, modeIf(flags))
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkPlain(f.Name(), info)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// modeIf is the mode for openat2, which refuses one when nothing is created.
func modeIf(flags int) uint64 {
	if flags&unix.O_CREAT != 0 {
		return logFileMode
	}
	return 0
}

func checkPlain(path string, info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	// No link at all: removed while it was being opened, and still ours.
	if !ok || !info.Mode().IsRegular() || st.Nlink > 1 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: %w", path, errUnsafeFile)
	}
	return nil
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
		err = fmt.Errorf("%s: %w", path, errUnsafeFile)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// makeLogDir makes the directory of a log. Modes are explicit, whatever the umask.
func makeLogDir(path string) error {
	root, rel := logRoot(path)
	if err := os.MkdirAll(root, logRootMode); err != nil {
		return err
	}
	at := root
	for _, part := range []string{filepath.Dir(filepath.Dir(rel)), filepath.Base(filepath.Dir(rel))} {
		if part == "." {
			continue
		}
		at = filepath.Join(at, part)
		err := os.Mkdir(at, logDirMode)
		if err == nil {
			err = os.Chmod(at, logDirMode)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
