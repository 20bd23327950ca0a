package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// theLog is a log of three files, one of them compressed: lines 0..8, each a
// minute after the one before, with a long line over two records as number 4.
func theLog(t *testing.T) (path string, start time.Time) {
	t.Helper()
	path = logPathIn(t)
	start = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	if err := makeLogDir(path); err != nil {
		t.Fatal(err)
	}
	write := func(name string, from, to int) {
		var data []byte
		for i := from; i < to; i++ {
			at, stream := start.Add(time.Duration(i)*time.Minute), streamStdout
			if i%3 == 2 {
				stream = streamStderr
			}
			if i == 4 {
				data = appendRecord(data, at, stream, cut{[]byte("long "), 1, false})
			}
			data = appendRecord(data, at, stream, cut{fmt.Appendf(nil, "line %d", i), 1, true})
		}
		at := start.Add(time.Duration(to-1) * time.Minute)
		if err := errors.Join(os.WriteFile(name, data, 0o640), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write(path+".20260801-120300", 0, 3)
	write(path+".20260801-120600", 3, 6)
	write(path, 6, 9)
	if err := tidyLogs(t.Context(), path, 5); err != nil {
		t.Fatal(err)
	}
	if names := filesIn(t, path); !cmp.Equal(names, []string{"0.log", "0.log.20260801-120300.gz", "0.log.20260801-120600"}) {
		t.Fatalf("not the log this test is about: %v", names)
	}
	return path, start
}

func TestReadLogs(t *testing.T) {
	path, start := theLog(t)
	cases := map[string]struct {
		reason string
		q      LogQuery
		want   string
	}{
		"All":        {"rotated files belong to the log", LogQuery{Tail: -1}, "0 1 2 3 L4 5 6 7 8"},
		"Tail":       {"the last lines of the current file", LogQuery{Tail: 2}, "7 8"},
		"TailAll":    {"exactly the current file", LogQuery{Tail: 3}, "6 7 8"},
		"TailOlder":  {"back into the rotated file", LogQuery{Tail: 4}, "5 6 7 8"},
		"TailLong":   {"a long line is one line", LogQuery{Tail: 5}, "L4 5 6 7 8"},
		"TailGzip":   {"back into the compressed file", LogQuery{Tail: 8}, "1 2 3 L4 5 6 7 8"},
		"TailMore":   {"more than there are is all", LogQuery{Tail: 100}, "0 1 2 3 L4 5 6 7 8"},
		"TailNone":   {"none is none", LogQuery{Tail: 0}, ""},
		"Since":      {"from a time on, inclusive", LogQuery{Tail: -1, Since: start.Add(5 * time.Minute)}, "5 6 7 8"},
		"SinceOld":   {"reading back as far as needed", LogQuery{Tail: -1, Since: start.Add(90 * time.Second)}, "2 3 L4 5 6 7 8"},
		"SinceNever": {"nothing is as new", LogQuery{Tail: -1, Since: start.Add(time.Hour)}, ""},
		"SinceTail":  {"the last lines, and of those the newer ones", LogQuery{Tail: 4, Since: start.Add(7 * time.Minute)}, "7 8"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.q.Path = path
			var out strings.Builder
			if err := ReadLogs(t.Context(), tc.q, &out, &out); err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(strings.TrimSpace(out.String()), "\n", " ")
			got = strings.ReplaceAll(strings.ReplaceAll(got, "long line ", "L"), "line ", "")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestReadLogsStreams(t *testing.T) {
	path, _ := theLog(t)
	var out, errs strings.Builder
	if err := ReadLogs(t.Context(), LogQuery{Path: path, Tail: 4, Timestamps: true}, &out, &errs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("2026-08-01T12:06:00Z line 6\n2026-08-01T12:07:00Z line 7\n", out.String()); diff != "" {
		t.Errorf("stdout with times (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("2026-08-01T12:05:00Z line 5\n2026-08-01T12:08:00Z line 8\n", errs.String()); diff != "" {
		t.Errorf("stderr with times (-want +got):\n%s", diff)
	}
	errs.Reset()
	if err := ReadLogs(t.Context(), LogQuery{Path: path, Tail: 2}, nil, &errs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("line 5\nline 8\n", errs.String()); diff != "" {
		t.Errorf("the tail of one stream (-want +got):\n%s", diff)
	}
}

func TestReadLogsOdd(t *testing.T) {
	good := "2026-08-01T12:00:00Z stdout F good\n"
	cases := map[string]struct{ reason, content, want string }{
		"Missing":    {"a container that has not started has an empty log", "", ""},
		"Garbage":    {"what does not parse is left out", good + "garbage\n\n" + good, "good\ngood\n"},
		"Unfinished": {"a record that is being written is not there yet", good + "2026-08-01T12:00:00Z stdout F ba", "good\n"},
		"HugeLine":   {"nor does a line of another program cost memory", strings.Repeat("x", 3<<20) + "\n" + good, "good\n"},
		"TailP":      {"a last line without a newline counts", good + good + "2026-08-01T12:00:00Z stdout P end\n", "good\nend"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := logPathIn(t)
			if tc.content != "" {
				if err := errors.Join(makeLogDir(path), os.WriteFile(path, []byte(tc.content), 0o640)); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			if err := ReadLogs(t.Context(), LogQuery{Path: path, Tail: 2}, &out, nil); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestFollowAcrossRotation(t *testing.T) {
	cfg := testIOConfig(t)
	cfg.TTY, cfg.MaxSize, cfg.MaxFiles = true, 4000, 4 // a follower keeps up with what is removed behind it
	b := startIO(t, cfg)
	w := b.writer(streamStdout)
	var out safeBuffer
	followed := make(chan error, 1)
	go func() {
		followed <- ReadLogs(t.Context(), LogQuery{Path: cfg.LogPath, Tail: -1, Follow: true, Done: b.Drained()}, &out, nil)
	}()
	var want strings.Builder
	for i := range 1000 {
		s := fmt.Sprintf("line %d\n", i)
		want.WriteString(s)
		if _, err := w.WriteString(s); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			eventually(t, "the follower has line "+s, func() bool { return strings.HasSuffix(out.String(), s) })
		}
	}
	_, _ = w.WriteString("the end")
	_ = w.Close()
	if err := <-followed; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String()+"the end", out.String()); diff != "" {
		t.Errorf("what a follower saw (-want +got):\n%s", diff)
	}
}

func TestFollowEnds(t *testing.T) {
	t.Run("WithContainer", func(t *testing.T) {
		path := logPathIn(t)
		ended := make(chan struct{})
		var out safeBuffer
		done := make(chan error, 1)
		go func() {
			done <- ReadLogs(t.Context(), LogQuery{Path: path, Tail: -1, Follow: true, Done: ended}, &out, nil)
		}()
		l := &logFile{path: path, report: quiet()}
		l.append(line("late"))
		eventually(t, "the line", func() bool { return out.String() == "late\n" })
		l.append(line("last"))
		close(ended)
		if err := errors.Join(<-done, l.close()); err != nil || out.String() != "late\nlast\n" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
	t.Run("WithContext", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := ReadLogs(ctx, LogQuery{Path: logPathIn(t), Tail: -1, Follow: true, Done: make(chan struct{})}, nil, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("WithClient", func(t *testing.T) {
		path, _ := theLog(t)
		err := ReadLogs(t.Context(), LogQuery{Path: path, Tail: -1, Follow: true, Done: make(chan struct{})}, failing{}, failing{})
		if !errors.Is(err, errGone) {
			t.Errorf("a client that is gone: %v", err)
		}
	})
}

var errGone = errors.New("client is gone")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errGone }
