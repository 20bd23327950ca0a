package cri

import (
	"context"
	"errors"
	"fmt"

	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func logPathIn(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "default_web_uid", "main", "0.log")
}

func line(format string, args ...any) []byte {
	return appendRecord(nil, time.Now(), streamStdout, cut{fmt.Appendf(nil, format, args...), 1, true})
}

func filesIn(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLogFileModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := logPathIn(t)
	l := &logFile{path: path, report: quiet()}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() })
	got := map[string]os.FileMode{}
	for name, p := range map[string]string{"file": path, "container": filepath.Dir(path), "pod": filepath.Dir(filepath.Dir(path))} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = info.Mode().Perm()
	}
	want := map[string]os.FileMode{"file": 0o640, "container": 0o750, "pod": 0o750}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modes do not depend on the umask (-want +got):\n%s", diff)
	}
}

func TestLogFileMendsTornRecord(t *testing.T) {
	cases := map[string]struct{ reason, before, want string }{
		"Whole":    {"whole records stay", "a\nb\n", "a\nb\nnew\n"},
		"Torn":     {"half a record goes: its bytes come again", "a\nb", "a\nnew\n"},
		"OnlyTorn": {"even if nothing is left", "b", "new\n"},
		"LongTorn": {"however long", "a\n" + strings.Repeat("x", 20000), "a\nnew\n"},
		"Empty":    {"an empty file is fine", "", "new\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := logPathIn(t)
			if err := errors.Join(makeLogDir(path), os.WriteFile(path, []byte(tc.before), 0o640)); err != nil {
				t.Fatal(err)
			}
			l := &logFile{path: path, report: quiet()}
			l.append([]byte("new\n"))
			if err := l.close(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestLogFileRefusesWhatIsNotItsOwn(t *testing.T) {
	cases := map[string]struct {
		reason string
		trap   func(path, victim string) error
	}{
		"Symlink":     {"a pod that may write to the log directory must not aim our writes", func(path, victim string) error { return os.Symlink(victim, path) }},
		"HardLink":    {"nor with a hard link", func(path, victim string) error { return os.Link(victim, path) }},
		"FIFO":        {"nor make us wait", func(path, _ string) error { return syscall.Mkfifo(path, 0o600) }},
		"LinkedDir":   {"a directory on the way is no link either", func(path, victim string) error { return relink(filepath.Dir(path), filepath.Dir(victim)) }},
		"LinkedAbove": {"at no level of ours", func(path, victim string) error { return relink(filepath.Dir(filepath.Dir(path)), filepath.Dir(victim)) }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			path, victim := filepath.Join(base, "logs", "pod", "main", "0.log"), filepath.Join(base, "etc", "shadow")
			if err := errors.Join(makeLogDir(path), os.Mkdir(filepath.Dir(victim), 0o755), os.WriteFile(victim, []byte("secret\n"), 0o600), tc.trap(path, victim)); err != nil {
				t.Fatal(err)
			}
			l := &logFile{path: path, report: quiet()}
			l.append([]byte("new\n"))
			t.Cleanup(func() { _ = l.close() })
			var out strings.Builder
			if err := ReadLogs(t.Context(), LogQuery{Path: path, Tail: -1}, &out, &out); err == nil && out.Len() > 0 {
				t.Errorf("%s: read %q", tc.reason, out.String())
			}
			if got, err := os.ReadFile(victim); err != nil || string(got) != "secret\n" {
				t.Errorf("%s: the victim is %q now (%v)", tc.reason, got, err)
			}
		})
	}
}

func relink(path, to string) error {
	return errors.Join(os.Rename(path, path+".away"), os.Symlink(to, path))
}

func TestLogFileRotates(t *testing.T) {
	path := logPathIn(t)
	rotations := 0
	l := &logFile{path: path, maxSize: 200, report: quiet(), rotated: func() { rotations++ }}
	for i := range 100 {
		l.append(line("line %d", i))
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if rotations < 10 {
		t.Fatalf("%d rotations of 200 bytes in 100 lines", rotations)
	}
	names := filesIn(t, path)
	if len(names) != rotations+1 {
		t.Errorf("%d rotations left %d files: two in a second must not share a name", rotations, len(names))
	}
	kubelet := regexp.MustCompile(`^0\.log(\.\d{8}-\d{6}(\.\d{9})?)?$`)
	for _, n := range names {
		if !kubelet.MatchString(n) {
			t.Errorf("%s is not named as a kubelet would", n)
		}
	}
	var out strings.Builder
	if err := ReadLogs(t.Context(), LogQuery{Path: path, Tail: -1}, &out, nil); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if diff := cmp.Diff(want.String(), out.String()); diff != "" {
		t.Errorf("order of rotated files (-want +got):\n%s", diff)
	}
}

func TestLogFileMeddledWith(t *testing.T) {
	cases := map[string]struct {
		reason string
		meddle func(path string) error
		want   []string
	}{
		"Removed":   {"nobody could read what is written to a file without a name", os.Remove, []string{"stdout F two\n"}},
		"DirGone":   {"the directories come back too", func(p string) error { return os.RemoveAll(filepath.Dir(p)) }, []string{"stdout F two\n"}},
		"Emptied":   {"no hole is left where the lines were", func(p string) error { return os.Truncate(p, 0) }, []string{"stdout F two\n"}},
		"LeftAlone": {"the file goes on", func(string) error { return nil }, []string{"stdout F one\n", "stdout F two\n"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := logPathIn(t)
			l := &logFile{path: path, report: quiet()}
			t.Cleanup(func() { _ = l.close() })
			ended := make(chan struct{})
			var out safeBuffer
			followed := make(chan error, 1)
			l.append(line("one"))
			go func() {
				followed <- ReadLogs(t.Context(), LogQuery{Path: path, Tail: -1, Follow: true, Done: ended}, &out, nil)
			}()
			eventually(t, "the follower has the first line", func() bool { return out.String() == "one\n" })
			if err := tc.meddle(path); err != nil {
				t.Fatal(err)
			}
			l.append(line("two"))
			close(ended)
			if err := <-followed; err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, stripped(t, path)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if out.String() != "one\ntwo\n" {
				t.Errorf("%s: the follower saw %q", tc.reason, out.String())
			}
		})
	}
}

func TestNextStamp(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 5, time.UTC)
	cases := map[string]struct{ reason, last, want string }{
		"First":     {"a kubelet's name", "", "20260801-120000"},
		"Later":     {"the usual", "20260801-115959", "20260801-120000"},
		"Same":      {"two in a second", "20260801-120000", "20260801-120000.000000005"},
		"SameAgain": {"in the same nanosecond even", "20260801-120000.000000005", "20260801-120000.000000006"},
		"SetBack":   {"a clock that was set back must not make the newest file the oldest", "20260801-130000", "20260801-130000.000000001"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := nextStamp(now, tc.last)
			if got != tc.want || got <= tc.last {
				t.Errorf("%s: %s after %s, want %s", tc.reason, got, tc.last, tc.want)
			}
		})
	}
}

func TestTidyLogs(t *testing.T) {
	path := logPathIn(t)
	if err := makeLogDir(path); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, n := range []string{"", ".20260101-000001", ".20260101-000002", ".20260101-000003", ".20260101-000004", ".20260101-000004.000000001", ".20260101-000002.tmp", ".20260101-000001.gz"} {
		if err := errors.Join(os.WriteFile(path+n, line("in %q", n), 0o640), os.Chtimes(path+n, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tidyLogs(t.Context(), path, 4); err != nil {
		t.Fatal(err)
	}
	want := []string{"0.log", "0.log.20260101-000003.gz", "0.log.20260101-000004.000000001", "0.log.20260101-000004.gz"}
	if diff := cmp.Diff(want, filesIn(t, path)); diff != "" {
		t.Errorf("oldest first removed, the newest rotated one not compressed (-want +got):\n%s", diff)
	}
	info, err := os.Stat(path + ".20260101-000003.gz")
	if err != nil {
		t.Fatal(err)
	}
	if !info.ModTime().Equal(old) || info.Mode().Perm() != 0o640 {
		t.Errorf("compressed file is of %s, mode %o", info.ModTime(), info.Mode().Perm())
	}
	var out strings.Builder
	if err := ReadLogs(t.Context(), LogQuery{Path: path, Tail: 3}, &out, nil); err != nil {
		t.Fatal(err)
	}
	wantLines := "in \".20260101-000004\"\nin \".20260101-000004.000000001\"\nin \"\"\n"
	if diff := cmp.Diff(wantLines, out.String()); diff != "" {
		t.Errorf("tail reaches into compressed files (-want +got):\n%s", diff)
	}
	if err := removeLogs(path); err != nil {
		t.Fatal(err)
	}
	if left := filesIn(t, path); len(left) != 0 {
		t.Errorf("removeLogs left %v", left)
	}
	if err := removeLogs(path); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

func TestTidyLogsStops(t *testing.T) {
	path := logPathIn(t)
	if err := makeLogDir(path); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"", ".20260101-000001", ".20260101-000002"} {
		if err := os.WriteFile(path+n, line("x"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tidyLogs(ctx, path, 5); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(filesIn(t, path), func(n string) bool { return strings.HasSuffix(n, tmpSuffix) }) {
		t.Error("a temporary file stayed")
	}
}

func TestLogLink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "containers")
	p := &podState{name: "web", namespace: "default"}
	c := &Container{ID: strings.Repeat("a", 64), Name: "main", LogPath: "/var/log/pods/x/main/0.log"}
	want := filepath.Join(dir, "web_default_main-"+c.ID+".log")
	for range 2 {
		if err := makeLogLink(dir, p, c); err != nil {
			t.Fatal(err)
		}
	}
	c.LogPath = "/var/log/pods/y/main/0.log"
	if err := makeLogLink(dir, p, c); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(want); err != nil || to != c.LogPath {
		t.Errorf("link %s goes to %q (%v)", want, to, err)
	}
	for range 2 {
		if err := removeLogLink(dir, p, c); err != nil {
			t.Fatal(err)
		}
	}
	p.name = strings.Repeat("n", 253)
	if n := len(filepath.Base(logLink(dir, p, c))); n != 255 {
		t.Errorf("a long name has %d bytes; a file system takes 255", n)
	}
}

func TestRemoveEmptyLogDirs(t *testing.T) {
	cases := map[string]struct {
		reason string
		make   []string // below the pod's directory; files end with .log
		want   []string
	}{
		"Empty":   {"the logs are gone, and so must be what held them", []string{"a", "b"}, nil},
		"Kept":    {"a log that was kept keeps its directory", []string{"a/0.log", "b"}, []string{".", "a", "a/0.log"}},
		"NotOurs": {"what somebody put there is no directory of ours", []string{"a", "note.log"}, []string{".", "note.log"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := filepath.Join(t.TempDir(), "default_web_uid")
			for _, m := range tc.make {
				path := filepath.Join(pod, m)
				dir := strings.TrimSuffix(path, filepath.Base(path))
				if filepath.Ext(path) == "" {
					dir = path
				}
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if dir != path {
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 2 { // and again, as after a crash
				if err := removeEmptyLogDirs(pod); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			if err := filepath.WalkDir(filepath.Dir(pod), func(path string, _ os.DirEntry, err error) error {
				if rel, relErr := filepath.Rel(pod, path); relErr == nil && rel != ".." {
					got = append(got, rel)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}
