package cri

import (
	"bytes"
	"time"
)

// maxLogContent is the longest content of one log record, in bytes; a longer line
// is split, as containerd does it for a kubelet.
const maxLogContent = 16384

// cut is the next record of an output stream.
type cut struct {
	content []byte
	taken   int  // bytes of the stream it stands for; 0: no whole record yet
	whole   bool // the line's end was seen (F), or not (P)
}

// cutRecord finds the first record in data, which begins where the last record
// ended. At the end of the stream, what has no newline is a record too.
func cutRecord(data []byte, limit int, atEnd bool) cut {
	// One byte more than the longest line with its "\r\n" decides everything.
	window := data[:min(len(data), limit+2)]
	if i := bytes.IndexByte(window, '\n'); i >= 0 {
		content := bytes.TrimSuffix(window[:i], []byte{'\r'})
		if len(content) <= limit {
			return cut{content, i + 1, true}
		}
		return cut{data[:limit], limit, false}
	}
	switch {
	case len(window) <= limit && !atEnd, len(window) == 0:
		return cut{}
	case len(window) <= limit:
		return cut{window, len(window), false}
	case len(window) == limit+1 && window[limit] == '\r' && !atEnd:
		return cut{} // perhaps the end of a line that just fits
	default:
		return cut{data[:limit], limit, false}
	}
}

// appendRecord appends c as a line of a log file. The time is the writing's, as
// in containerd, and each record has its own: some readers of logs take equal
// lines with equal times for one.
func appendRecord(dst []byte, now time.Time, stream string, c cut) []byte {
	dst = now.AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, ' ')
	dst = append(dst, stream...)
	if c.whole {
		dst = append(dst, " F "...)
	} else {
		dst = append(dst, " P "...)
	}
	dst = append(dst, c.content...)
	return append(dst, '\n')
}

// record is one line of a log file.
type record struct {
	at      time.Time
	stamp   []byte
	stream  string
	whole   bool
	content []byte
}

// parseRecord reads a line of a log file, without its newline.
func parseRecord(line []byte) (record, bool) {
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return record{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return record{}, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return record{}, false
	}
	// A container that prints an empty line may leave no space after the tag.
	tags, content, _ := bytes.Cut(rest, []byte{' '})
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	r := record{at: at, stamp: stamp, whole: string(tag) == "F", content: content}
	switch string(stream) {
	case streamStdout:
		r.stream = streamStdout
	case streamStderr:
		r.stream = streamStderr
	default:
		return record{}, false
	}
	return r, r.whole || string(tag) == "P"
}
