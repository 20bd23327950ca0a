package podsource

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// change is one event in a watched directory.
type change struct {
	watch int
	name  string // empty for the directory itself
	mask  uint32
}

const (
	// written is news of a file that somebody still writes to.
	written = unix.IN_CREATE | unix.IN_MODIFY
	// complete is news of a file that is as it shall be. This is why inotify is
	// used as it is: portable libraries have no word for the end of writing, and
	// would leave only a guess at how long to wait for the other half of a file.
	complete = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO
	gone     = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// watcher follows one directory at a time. Its zero value sees nothing.
type watcher struct {
	changes chan []change // nil when nothing is seen

	file *os.File
	fd   int // of file, which must not be asked for it: that would make it blocking
	done sync.WaitGroup
	stop chan struct{}

	dir   string
	inode [2]uint64 // device and number of dir
	wd    int       // -1 when nothing is watched
	only  string    // the one name that matters, when dir is around what is followed
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch manifests (is fs.inotify.max_user_instances too low?): %w", err)
	}
	w := &watcher{changes: make(chan []change), file: os.NewFile(uintptr(fd), "inotify"), fd: fd, stop: make(chan struct{}), wd: -1}
	w.done.Go(w.read)
	return w, nil
}

// close returns when the reader has.
func (w *watcher) close() {
	if w.file == nil {
		return
	}
	close(w.stop)
	w.file.Close() //nolint:errcheck // nothing is lost with it
	w.done.Wait()
}

// follow makes sure that the directory at path is watched, or the one around it
// when path is a file or does not exist. It is cheap when nothing has changed.
func (w *watcher) follow(path string) error {
	if w.file == nil {
		return nil
	}
	dir, only := path, ""
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		dir, only = filepath.Dir(path), filepath.Base(path)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	inode := [2]uint64{uint64(st.Dev), st.Ino}
	if w.wd >= 0 && w.dir == dir && w.inode == inode && w.only == only {
		return nil
	}
	if w.wd >= 0 {
		unix.InotifyRmWatch(w.fd, uint32(w.wd)) //nolint:errcheck // it went with its directory
		w.wd = -1
	}
	wd, err := unix.InotifyAddWatch(w.fd, dir, written|complete|gone|unix.IN_ONLYDIR)
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	w.wd, w.dir, w.inode, w.only = wd, dir, inode, only
	return nil
}

// wait returns what has changed, or nothing once d is over. It fails when ctx ends.
func (w *watcher) wait(ctx context.Context, d time.Duration) ([]change, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return nil, nil
		case changes := <-w.changes:
			if changes = w.relevant(w.drain(changes)); len(changes) > 0 {
				return changes, nil
			}
		}
	}
}

// drain adds what else is there already: one look serves all.
func (w *watcher) drain(changes []change) []change {
	for {
		select {
		case more := <-w.changes:
			changes = append(changes, more...)
		default:
			return changes
		}
	}
}

// relevant leaves out the neighbours of a single file, and notes the end of a
// watch: a directory that is made anew may well get the number of the old one.
func (w *watcher) relevant(changes []change) []change {
	var out []change
	for _, c := range changes {
		if c.mask&unix.IN_IGNORED != 0 {
			if c.watch == w.wd {
				w.wd = -1
			}
			continue
		}
		if w.only == "" || c.name == "" || c.name == w.only {
			out = append(out, c)
		}
	}
	return out
}

func (w *watcher) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // closed
		}
		select {
		case w.changes <- parseEvents(buf[:n]):
		case <-w.stop:
			return
		}
	}
}

// parseEvents reads what the kernel writes: see inotify(7).
func parseEvents(buf []byte) []change {
	var out []change
	for len(buf) >= unix.SizeofInotifyEvent {
		watch := int(int32(binary.NativeEndian.Uint32(buf)))
		mask := binary.NativeEndian.Uint32(buf[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		if end > len(buf) {
			break
		}
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:end]), "\x00")
		out = append(out, change{watch, name, mask})
		buf = buf[end:]
	}
	return out
}
