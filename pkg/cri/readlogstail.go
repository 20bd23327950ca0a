package cri

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// A line of the container ends with a whole record; records before it may be
// partial. The very last record may be partial too: it counts as a line.

// seekTail moves parts to where the last lines begin. It drops the parts before,
// and may leave lines to be skipped, which w learns.
func seekTail(parts []*logPart, lines int64, w *logWriter) ([]*logPart, error) {
	open := true // no whole record has been seen yet, going backwards
	for i, p := range slices.Backward(parts) {
		var have int64
		var err error
		if p.compressed() {
			have, err = p.seekCompressed(lines, &open, w)
		} else {
			have, err = p.seekPlain(lines, &open, w)
		}
		if err != nil {
			return parts, err
		}
		lines -= have
		if lines > 0 {
			continue
		}
		closeLogs(parts[:i])
		return parts[i:], nil
	}
	return parts, nil
}

// seekPlain moves to where the last lines of the file begin, reading backwards,
// and returns how many there are, at most lines.
func (p *logPart) seekPlain(lines int64, open *bool, w *logWriter) (int64, error) {
	end, err := p.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	var have int64
	start, err := eachLineBackwards(p.file, end, func(line []byte) bool {
		r, ok := parseRecord(line)
		if !ok || !w.wants(&r) {
			return true
		}
		if r.whole || *open {
			if have == lines {
				return false
			}
			have++
		}
		*open = false
		return true
	})
	if err != nil {
		return 0, err
	}
	if _, err := p.file.Seek(start, io.SeekStart); err != nil {
		return 0, err
	}
	p.lines.Reset(p.file)
	p.rest = nil
	return have, nil
}

// eachLineBackwards calls f for the whole lines before end, the last one first,
// until f refuses one. It returns where the line begins that f accepted last.
func eachLineBackwards(r io.ReaderAt, end int64, f func(line []byte) bool) (int64, error) {
	const block = 64 << 10
	var data []byte // what is known from offset pos on, up to the start of the last line that f got
	pos, whole := end, false
	for {
		i := bytes.LastIndexByte(data, '\n')
		switch {
		case i >= 0 && !whole: // what follows the last newline is not whole yet
			whole = true
			data = data[:i]
		case i >= 0:
			if !f(data[i+1:]) {
				return pos + int64(len(data)) + 1, nil
			}
			data = data[:i]
		case pos == 0:
			if whole && !f(data) {
				return int64(len(data)) + 1, nil
			}
			return 0, nil
		default:
			n := min(pos, block)
			more := make([]byte, n, n+int64(len(data)))
			if _, err := r.ReadAt(more, pos-n); err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
			pos -= n
			data = append(more, data...)
		}
	}
}

// seekCompressed counts the lines of a compressed file, which can only be read
// forwards, and leaves those to w that are too many.
func (p *logPart) seekCompressed(lines int64, open *bool, w *logWriter) (int64, error) {
	var have int64
	last := true
	for {
		line, err := p.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if r, ok := parseRecord(line); ok && w.wants(&r) {
			last = r.whole
			if r.whole {
				have++
			}
		}
	}
	if !last && *open {
		have++
	}
	*open = *open && have == 0
	w.skip = max(have-lines, 0)
	return min(have, lines), p.rewind()
}
