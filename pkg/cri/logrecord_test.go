package cri

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// records renders data as a pump would with everything in sight.
func records(data string, limit int, atEnd bool) (out []string, left string) {
	for len(data) > 0 {
		c := cutRecord([]byte(data), limit, atEnd)
		if c.taken == 0 {
			break
		}
		tag := "P:"
		if c.whole {
			tag = "F:"
		}
		out = append(out, tag+string(c.content))
		data = data[c.taken:]
	}
	return out, data
}

func TestCutRecord(t *testing.T) {
	type want struct {
		Records []string
		Left    string
	}
	cases := map[string]struct {
		reason string
		data   string
		atEnd  bool
		want   want
	}{
		"Lines":             {"each newline ends a record", "a\nbc\n", false, want{[]string{"F:a", "F:bc"}, ""}},
		"EmptyLines":        {"an empty line is a line", "\n\n", false, want{[]string{"F:", "F:"}, ""}},
		"Unfinished":        {"the beginning of a line waits for its end", "a\nbc", false, want{[]string{"F:a"}, "bc"}},
		"UnfinishedAtEnd":   {"what has no newline when the writer leaves is partial", "a\nbc", true, want{[]string{"F:a", "P:bc"}, ""}},
		"CarriageReturn":    {"terminals print \\r\\n", "a\r\n\r\nb\r\r\n", false, want{[]string{"F:a", "F:", "F:b\r"}, ""}},
		"ReturnAtEnd":       {"a \\r is content unless a newline follows", "a\r", true, want{[]string{"P:a\r"}, ""}},
		"ExactlyTheLimit":   {"the longest line is one record", "12345678\n", false, want{[]string{"F:12345678"}, ""}},
		"LimitWithReturn":   {"\\r\\n does not count", "12345678\r\n", false, want{[]string{"F:12345678"}, ""}},
		"LimitUnfinished":   {"a line of the limit's length may end there", "12345678", false, want{nil, "12345678"}},
		"LimitReturnWaits":  {"so may one with a \\r", "12345678\r", false, want{nil, "12345678\r"}},
		"LimitReturnGoesOn": {"but then the \\r was content", "12345678\rx", false, want{[]string{"P:12345678"}, "\rx"}},
		"LimitReturnEnds":   {"or the last thing that was printed", "12345678\r", true, want{[]string{"P:12345678", "P:\r"}, ""}},
		"OverTheLimit":      {"a longer line is cut at the limit", "123456789\n", false, want{[]string{"P:12345678", "F:9"}, ""}},
		"TwiceTheLimit":     {"as often as needed", "1234567812345678\n", false, want{[]string{"P:12345678", "F:12345678"}, ""}},
		"LongUnfinished":    {"what cannot fit is not waited for", "1234567812345678x", false, want{[]string{"P:12345678", "P:12345678"}, "x"}},
		"Nothing":           {"nothing is nothing", "", true, want{nil, ""}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got want
			got.Records, got.Left = records(tc.data, 8, tc.atEnd)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestRecordRoundTrip(t *testing.T) {
	at := time.Date(2026, 8, 1, 12, 0, 0, 120, time.FixedZone("", 7200))
	for _, c := range []cut{{[]byte("hello  world "), 0, true}, {nil, 0, true}, {[]byte("half"), 0, false}} {
		line := string(appendRecord(nil, at, streamStderr, c))
		r, ok := parseRecord([]byte(strings.TrimSuffix(line, "\n")))
		if !ok || !r.at.Equal(at) || r.stream != streamStderr || r.whole != c.whole || string(r.content) != string(c.content) {
			t.Errorf("%q reads back as %+v, %v", line, r, ok)
		}
	}
	want := "2026-08-01T12:00:00.00000012+02:00 stdout F x\n"
	if got := string(appendRecord(nil, at, streamStdout, cut{[]byte("x"), 2, true})); got != want {
		t.Errorf("record is %q, want %q", got, want)
	}
}

func TestParseRecordRefuses(t *testing.T) {
	for _, line := range []string{"", "x", "2026-08-01T12:00:00Z", "2026-08-01T12:00:00Z stdout", "2026-08-01T12:00:00Z stdin F x", "yesterday stdout F x", "2026-08-01T12:00:00Z stdout X x"} {
		if r, ok := parseRecord([]byte(line)); ok {
			t.Errorf("%q is taken for %+v", line, r)
		}
	}
}
