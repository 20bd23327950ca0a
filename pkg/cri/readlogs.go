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
	"strings"
	"time"
)

// LogQuery says which lines of a log are wanted.
type LogQuery struct {
	Path   string
	Follow bool
	// Tail is how many lines from the end; negative means all.
	Tail       int64
	Since      time.Time
	Timestamps bool
	// Done is closed when no more lines will come; nil means that it is.
	Done <-chan struct{}
}

// ReadLogs writes the wanted lines to stdout and stderr, without their prefix; a
// nil writer leaves its stream out. It reads back into rotated files, compressed
// or not, and a follower keeps up with rotation. A log that does not exist yet
// is empty. For a follower, the end of ctx is an end like another.
func ReadLogs(ctx context.Context, q LogQuery, stdout, stderr io.Writer) error {
	w := newLogWriter(&q, stdout, stderr)
	if err := errors.Join(readLogs(ctx, &q, w), w.flush()); err != nil {
		return fmt.Errorf("read log %s: %w", q.Path, err)
	}
	return nil
}

func readLogs(ctx context.Context, q *LogQuery, w *logWriter) error {
	var watch *logWatch
	if q.Follow {
		var err error
		if watch, err = newLogWatch(q); err != nil {
			return err
		}
		defer watch.close()
	}
	files, err := openLogs(q.Path)
	if err != nil {
		return err
	}
	defer func() { closeLogs(files) }()
	if !q.Since.IsZero() {
		files = newerThan(files, q.Since)
	}
	if q.Tail >= 0 {
		if files, err = seekTail(files, q.Tail, w); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := f.read(ctx, w); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	return follow(ctx, q, &files, w, watch)
}

// logPart is one of the files that make up a log. It stays the same file when it
// is renamed or removed.
type logPart struct {
	name  string // when it was opened
	file  *os.File
	info  os.FileInfo
	began time.Time // of the first record; zero: not known
	lines *bufio.Reader
	rest  []byte // the beginning of a record whose end is not there yet
}

// openLogs opens all parts of a log, oldest first. The current one is opened
// first: a rotation meanwhile then shows the same file twice, but hides none.
func openLogs(path string) ([]*logPart, error) {
	dir, err := openLogDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	current, err := openPart(dir, filepath.Base(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names, err := rotatedLogs(dir, filepath.Base(path))
	if err != nil {
		return nil, errors.Join(err, current.close())
	}
	var parts []*logPart
	for _, name := range names {
		p, err := openPart(dir, name)
		if errors.Is(err, fs.ErrNotExist) { // compressed or removed just now
			p, err = openPart(dir, name+gzSuffix)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			closeLogs(append(parts, current))
			return nil, err
		case current != nil && os.SameFile(p.info, current.info):
			_ = p.close() // the current one, renamed after we opened it
		default:
			parts = append(parts, p)
		}
	}
	if current != nil {
		parts = append(parts, current)
	}
	return parts, nil
}

// openPart opens one file of a log, through gzip when its name says so.
func openPart(dir *os.File, name string) (*logPart, error) {
	f, info, err := openPlain(dir, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	p := &logPart{name: name, file: f, info: info}
	if err := p.rewind(); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", f.Name(), err), f.Close())
	}
	head, _ := p.lines.Peek(longestStamp) // an error will come again
	p.began = stampOf(head)
	return p, nil
}

const longestStamp = len("2006-01-02T15:04:05.999999999+00:00 ")

// stampOf is the time at which the record at the beginning of head was written.
func stampOf(head []byte) time.Time {
	stamp, _, whole := bytes.Cut(head, []byte{' '})
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if !whole || err != nil {
		return time.Time{}
	}
	return at
}

// rewind goes back to the first record.
func (p *logPart) rewind() error {
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var r io.Reader = p.file
	if p.compressed() {
		z, err := gzip.NewReader(p.file)
		if err != nil {
			return err
		}
		r = z
	}
	p.lines, p.rest = bufio.NewReaderSize(r, 32<<10), nil
	return nil
}

func (p *logPart) compressed() bool { return strings.HasSuffix(p.name, gzSuffix) }

func (p *logPart) close() error {
	if p == nil {
		return nil
	}
	return p.file.Close()
}

func closeLogs(parts []*logPart) {
	for _, p := range parts {
		_ = p.close() // opened for reading
	}
}

// next returns the next whole line without its newline, or io.EOF. More may be
// there later. The line is good until the next call.
func (p *logPart) next() ([]byte, error) {
	for {
		piece, err := p.lines.ReadSlice('\n')
		if err == nil && len(p.rest) == 0 {
			return piece[:len(piece)-1], nil
		}
		p.rest = append(p.rest, piece...)
		switch {
		case err == nil:
			line := p.rest[:len(p.rest)-1]
			p.rest = nil
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull) && len(p.rest) < maxLogLine:
		case errors.Is(err, bufio.ErrBufferFull):
			p.rest = p.rest[:0] // not ours; what follows will not parse and is skipped
		default:
			return nil, err
		}
	}
}

// maxLogLine is more than any line in a log of ours has.
const maxLogLine = 1 << 20

// restart goes back to the beginning of a file that someone has emptied: it is
// shorter than what was read, or begins with another record.
func (p *logPart) restart() error {
	at, err := p.file.Seek(0, io.SeekCurrent)
	if err != nil || at == 0 || p.compressed() {
		return err
	}
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	began := p.firstRecord()
	if info.Size() >= at && p.headStamp().Equal(began) {
		return nil
	}
	p.began = time.Time{}
	return p.rewind()
}

// read passes all whole records to w.
func (p *logPart) read(ctx context.Context, w *logWriter) error {
	if err := p.restart(); err != nil {
		return err
	}
	for {
		line, err := p.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := w.write(line); err != nil {
			return err
		}
	}
}

// newerThan drops the parts that were written to the last time before since.
func newerThan(parts []*logPart, since time.Time) []*logPart {
	for len(parts) > 1 && parts[0].info.ModTime().Before(since) {
		_ = parts[0].close()
		parts = parts[1:]
	}
	return parts
}

// logWriter filters records and writes them for the reader.
type logWriter struct {
	q      *LogQuery
	skip   int64 // whole lines to leave out first
	out    map[string]io.Writer
	inLine map[string]bool // the stream's last record was partial

	// Written records wait here, for one stream at a time, so that lines of both
	// streams keep their order.
	buf  bytes.Buffer
	dest io.Writer
}

const logWriteSize = 32 << 10

func newLogWriter(q *LogQuery, stdout, stderr io.Writer) *logWriter {
	w := &logWriter{q: q, out: map[string]io.Writer{}, inLine: map[string]bool{}}
	if stdout != nil {
		w.out[streamStdout] = stdout
	}
	if stderr != nil {
		w.out[streamStderr] = stderr
	}
	return w
}

// wants says whether the reader asked for the stream of a record.
func (w *logWriter) wants(r *record) bool { return w.out[r.stream] != nil }

func (w *logWriter) write(line []byte) error {
	r, ok := parseRecord(line)
	if !ok || !w.wants(&r) {
		return nil // what a crash of the machine has torn, or not asked for
	}
	if w.skip > 0 {
		if r.whole {
			w.skip--
		}
		return nil
	}
	if r.at.Before(w.q.Since) {
		return nil
	}
	if to := w.out[r.stream]; to != w.dest || w.buf.Len() > logWriteSize {
		if err := w.flush(); err != nil {
			return err
		}
		w.dest = to
	}
	if w.q.Timestamps && !w.inLine[r.stream] {
		w.buf.Write(r.stamp)
		w.buf.WriteByte(' ')
	}
	w.buf.Write(r.content)
	if r.whole {
		w.buf.WriteByte('\n')
	}
	w.inLine[r.stream] = !r.whole
	return nil
}

// flush writes what waits.
func (w *logWriter) flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	_, err := w.dest.Write(w.buf.Bytes())
	w.buf.Reset()
	if err != nil {
		return fmt.Errorf("write log lines: %w", err)
	}
	return nil
}
