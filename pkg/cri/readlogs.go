package cri

import (
	"bufio"
	"bytes"
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

	"github.com/fsnotify/fsnotify"
)

// LogQuery says which lines of a log are wanted.
type LogQuery struct {
	Path       string
	Follow     bool
	Tail       int64 // lines; negative means all
	Since      time.Time
	Timestamps bool
	// Running says whether more lines may come; nil means no.
	Running func() bool
}

// endCheck is how often a follower asks whether the container still runs: its
// end is no event in the log's directory.
const endCheck = 300 * time.Millisecond

// ReadLogs writes the wanted lines to stdout and stderr, without their prefix. It
// reads back into rotated files, and a follower keeps up with rotation. A log
// that does not exist yet is empty.
func ReadLogs(ctx context.Context, q LogQuery, stdout, stderr io.Writer) error {
	files, err := rotatedLogs(q.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files = append(files, q.Path)
	files, skip, err := tailStart(files, q.Tail)
	if err != nil {
		return err
	}
	w := &logWriter{q: q, skip: skip, out: map[string]io.Writer{"stdout": stdout, "stderr": stderr}}
	for _, f := range files[:len(files)-1] {
		if err := w.whole(ctx, f); err != nil {
			return err
		}
	}
	if q.Follow {
		return w.follow(ctx)
	}
	return w.whole(ctx, q.Path)
}

// tailStart drops the files that hold none of the last lines, and says how many
// lines of the first remaining one to skip.
func tailStart(files []string, tail int64) ([]string, int64, error) {
	if tail < 0 {
		return files, 0, nil
	}
	var have int64
	for i := len(files) - 1; i >= 0; i-- {
		n, err := countLines(files[i])
		if err != nil {
			return nil, 0, err
		}
		have += n
		if have >= tail {
			return files[i:], have - tail, nil
		}
	}
	return files, 0, nil
}

// countLines counts whole lines: those whose last record says F.
func countLines(path string) (int64, error) {
	r, err := openLog(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var n int64
	err = eachRecord(r, func(line []byte) error {
		if rec, ok := parseRecord(line); ok && !rec.partial {
			n++
		}
		return nil
	})
	return n, err
}

// openLog opens a log file, through gzip when its name says so.
func openLog(path string) (io.ReadCloser, error) {
	f, err := openRegular(path)
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return f, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

func eachRecord(r io.Reader, f func([]byte) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadBytes('\n')
		if err == nil {
			err = f(line)
		}
		if errors.Is(err, io.EOF) {
			return nil // what follows the last newline is not whole yet
		}
		if err != nil {
			return err
		}
	}
}

// record is one line of a log file.
type record struct {
	at      time.Time
	stamp   []byte
	stream  string
	partial bool
	content []byte
}

func parseRecord(line []byte) (record, bool) {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	parts := bytes.SplitN(line, []byte{' '}, 4)
	if len(parts) != 4 {
		return record{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(parts[0]))
	if err != nil {
		return record{}, false
	}
	tag, _, _ := bytes.Cut(parts[2], []byte{':'})
	return record{at: at, stamp: parts[0], stream: string(parts[1]), partial: string(tag) == "P", content: parts[3]}, true
}

// logWriter filters records and writes them for the reader.
type logWriter struct {
	q      LogQuery
	skip   int64
	out    map[string]io.Writer
	inLine bool // the last record written was partial
}

func (w *logWriter) write(line []byte) error {
	rec, ok := parseRecord(line)
	if !ok {
		return nil // torn by a crash of the machine; the rest is good
	}
	if w.skip > 0 {
		if !rec.partial {
			w.skip--
		}
		return nil
	}
	if rec.at.Before(w.q.Since) {
		return nil
	}
	out := w.out[rec.stream]
	if out == nil {
		return nil
	}
	var b []byte
	if w.q.Timestamps && !w.inLine {
		b = append(append(b, rec.stamp...), ' ')
	}
	b = append(b, rec.content...)
	if !rec.partial {
		b = append(b, '\n')
	}
	w.inLine = rec.partial
	_, err := out.Write(b)
	return err
}

func (w *logWriter) whole(ctx context.Context, path string) error {
	r, err := openLog(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	return eachRecord(r, func(line []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return w.write(line)
	})
}

// follow reads the current file to its end, again and again, until the container
// no longer runs. A rotated file is read to its end first.
func (w *logWriter) follow(ctx context.Context) error {
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the log: %w", err)
	}
	defer watch.Close()
	if err := watch.Add(filepath.Dir(w.q.Path)); err != nil {
		return fmt.Errorf("watch the log: %w", err)
	}
	tick := time.NewTicker(endCheck)
	defer tick.Stop()
	f := &followed{path: w.q.Path}
	defer f.close()
	for {
		// Asked before reading: lines written before the end are still read.
		running := w.q.Running != nil && w.q.Running()
		if err := f.read(w.write); err != nil {
			return err
		}
		if !running {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watch.Events:
		case err := <-watch.Errors:
			if err != nil && !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch the log: %w", err)
			}
		case <-tick.C:
		}
	}
}

// followed is a file that may be replaced while it is read.
type followed struct {
	path string
	file *os.File
	rest []byte // the beginning of a record whose end is not there yet
	buf  [32 << 10]byte
}

func (f *followed) close() {
	if f.file != nil {
		_ = f.file.Close() // opened for reading
		f.file = nil
	}
}

// read passes on everything up to the end of the newest file.
func (f *followed) read(write func([]byte) error) error {
	for {
		if f.file == nil {
			file, err := openRegular(f.path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			f.file = file
		}
		replaced := f.replaced() // asked before the last read of the old file
		for {
			n, err := f.file.Read(f.buf[:])
			f.rest = append(f.rest, f.buf[:n]...)
			for {
				i := bytes.IndexByte(f.rest, '\n')
				if i < 0 {
					break
				}
				if err := write(f.rest[:i+1]); err != nil {
					return err
				}
				f.rest = slices.Delete(f.rest, 0, i+1)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		if !replaced {
			return nil
		}
		f.close()
	}
}

// replaced says whether another file has taken the path.
func (f *followed) replaced() bool {
	now, err := os.Lstat(f.path)
	if err != nil {
		return false
	}
	have, err := f.file.Stat()
	return err == nil && !os.SameFile(now, have)
}
