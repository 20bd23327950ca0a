package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openOutput opens the reading end of a FIFO, which it makes if need be. It waits
// for no writer.
func openOutput(path string) (*os.File, error) {
	return openFIFO(path, unix.O_RDONLY)
}

// openInput opens the writing end of a FIFO, which it makes if need be. Only
// while there is a reader can that be had without waiting: we are one meanwhile.
func openInput(path string) (*os.File, error) {
	both, err := openFIFO(path, unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer both.Close()
	return openFIFO(path, unix.O_WRONLY)
}

func openFIFO(path string, mode int) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	f, err := os.OpenFile(path, mode|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != fs.ModeNamedPipe {
		err = fmt.Errorf("%s is not a FIFO", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// closeAll closes files, of which some may be nil or closed already.
func closeAll(files map[string]*os.File) error {
	var errs []error
	for _, f := range files {
		if f == nil {
			continue
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
