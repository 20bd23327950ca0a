package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// followCheck is how often a follower looks for lines where inotify is exhausted.
const followCheck = time.Second

// follow goes on from the end of the last part until no more lines will come.
func follow(ctx context.Context, q *LogQuery, parts *[]*logPart, w *logWriter, watch *logWatch) error {
	for {
		// Asked before reading: lines written before the end are still read.
		ended := q.ended()
		err := catchUp(ctx, q, parts, w)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.flush(); err != nil {
			return err
		}
		if ended {
			return nil
		}
		if !watch.wait(ctx) {
			return nil // the reader has all there was
		}
	}
}

// ended says whether no more lines will come.
func (q *LogQuery) ended() bool {
	select {
	case <-q.Done: // never, if it is nil
		return true
	default:
		return q.Done == nil
	}
}

// catchUp reads up to the end of the newest file. A file that was rotated is read
// to its end before the next one.
func catchUp(ctx context.Context, q *LogQuery, parts *[]*logPart, w *logWriter) error {
	for {
		if len(*parts) == 0 {
			opened, err := openLogs(q.Path)
			if err != nil || len(opened) == 0 {
				return err
			}
			*parts = opened
		}
		at := (*parts)[len(*parts)-1]
		later, err := at.later(q.Path) // asked before the last read of at
		if err != nil {
			return err
		}
		*parts = append(*parts, later...)
		for ; ; *parts = (*parts)[1:] {
			if err := (*parts)[0].read(ctx, w); err != nil {
				return err
			}
			if len(*parts) == 1 {
				break
			}
			_ = (*parts)[0].close() // opened for reading
		}
		if len(later) == 0 {
			return nil
		}
	}
}

// later opens the parts that came after p: none while p is still the current one.
func (p *logPart) later(path string) ([]*logPart, error) {
	now, err := os.Lstat(path)
	if err == nil && os.SameFile(now, p.info) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	all, err := openLogs(path)
	if err != nil {
		return nil, err
	}
	from := slices.IndexFunc(all, func(o *logPart) bool { return os.SameFile(o.info, p.info) }) + 1
	if from == 0 { // compressed or removed meanwhile: go on with what began later
		began := p.firstRecord()
		from = slices.IndexFunc(all, func(o *logPart) bool { return o.began.IsZero() || o.began.After(began) })
		if from < 0 {
			from = len(all)
		}
	}
	closeLogs(all[:from])
	return all[from:], nil
}

// firstRecord is when p began, also if it was empty when it was opened.
func (p *logPart) firstRecord() time.Time {
	if p.began.IsZero() && !p.compressed() {
		p.began = p.headStamp()
	}
	return p.began
}

// headStamp is the time of the record that the file begins with now.
func (p *logPart) headStamp() time.Time {
	head := make([]byte, longestStamp)
	n, _ := p.file.ReadAt(head, 0) // an error leaves it unknown
	return stampOf(head[:n])
}

// logWatch wakes a follower when something happens to the log and when the
// container ends; without inotify, now and then.
type logWatch struct {
	done   <-chan struct{}
	events chan struct{} // capacity 1
	notify *os.File      // inotify; nil when the machine has no more of them
	work   sync.WaitGroup
}

func newLogWatch(q *LogQuery) (*logWatch, error) {
	w := &logWatch{done: q.Done, events: make(chan struct{}, 1)}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return w, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE
	err = makeLogDir(q.Path) // nothing may have been printed yet
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, filepath.Dir(q.Path), events|unix.IN_ONLYDIR)
	}
	if errors.Is(err, unix.ENOSPC) {
		return w, unix.Close(fd)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", filepath.Dir(q.Path), err), unix.Close(fd))
	}
	w.notify = os.NewFile(uintptr(fd), "inotify")
	w.work.Go(w.listen)
	return w, nil
}

// listen turns events, of which only the fact matters, into wake-ups.
func (w *logWatch) listen() {
	buf := make([]byte, 4096)
	for {
		if _, err := w.notify.Read(buf); err != nil {
			return // closed
		}
		select {
		case w.events <- struct{}{}:
		default:
		}
	}
}

func (w *logWatch) close() {
	if w.notify != nil {
		_ = w.notify.Close() // opened for reading
	}
	w.work.Wait()
}

// wait returns when there may be something to do; false says that ctx has ended.
func (w *logWatch) wait(ctx context.Context) bool {
	var timer <-chan time.Time
	if w.notify == nil {
		t := time.NewTimer(followCheck)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-w.events:
	case <-w.done:
	case <-timer:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
