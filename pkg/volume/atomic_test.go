package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ignoreOwner(string) error { return nil }

func texts(pairs ...string) map[string]payload {
	out := map[string]payload{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = payload{data: []byte(pairs[i+1]), mode: 0o644}
	}
	return out
}

func TestWriteAtomically(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	writeFile(t, victim+"/keep", "precious")
	cases := map[string]struct {
		reason  string
		before  func(t *testing.T, dir string)
		files   map[string]payload
		want    map[string]string
		changed bool
	}{
		"First": {"an empty volume is filled", nil, texts("a", "1", "d/b", "2"),
			map[string]string{"a": "0644 1", "d/b": "0644 2"}, true},
		"Same": {"what has not changed is not written: watchers would wake up",
			write(texts("a", "1")), texts("a", "1"), map[string]string{"a": "0644 1"}, false},
		"Changed": {"another content replaces the old one", write(texts("a", "1", "b", "2")), texts("a", "3", "c", "4"),
			map[string]string{"a": "0644 3", "c": "0644 4"}, true},
		"Empty":      {"an object may have lost all its keys", write(texts("a", "1")), texts(), map[string]string{}, true},
		"FileToDir":  {"a file may become a directory", write(texts("a", "1")), texts("a/b", "2"), map[string]string{"a/b": "0644 2"}, true},
		"CrashFill":  {"a directory that was not finished is removed", func(t *testing.T, d string) { writeFile(t, d+"/..2026_01_02_03_04_05.6/a", "half") }, texts("a", "1"), map[string]string{"a": "0644 1"}, true},
		"CrashLink":  {"a temporary link does not wedge the volume", link("..2026_01_02_03_04_05.6", "..data_tmp"), texts("a", "1"), map[string]string{"a": "0644 1"}, true},
		"CrashUser":  {"links that users see are made up for", func(t *testing.T, d string) { write(texts("a", "1"))(t, d); must(t, os.Remove(d+"/a")) }, texts("a", "1"), map[string]string{"a": "0644 1"}, false},
		"Dangling":   {"a link to nothing is replaced", link("..2026_01_02_03_04_05.6", "..data"), texts("a", "1"), map[string]string{"a": "0644 1"}, true},
		"NotOurLink": {"a redirected link is replaced and not followed", link(victim, "..data"), texts("keep", "precious"), map[string]string{"keep": "0644 precious"}, true},
		"StepsOut":   {"nor is a relative one", link("../../victim", "..data"), texts("a", "1"), map[string]string{"a": "0644 1"}, true},
		"KeyIsLink":  {"a link planted under a key is not written through", link(victim+"/keep", "a"), texts("a", "1"), map[string]string{"a": "0644 1"}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tc.before != nil {
				tc.before(t, dir)
			}
			changed, err := writeAtomically(dir, tc.files, ignoreOwner)
			must(t, err)
			if changed != tc.changed {
				t.Errorf("%s: changed is %v", tc.reason, changed)
			}
			if d := cmp.Diff(tc.want, tree(t, dir)); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			machinery, err := filepath.Glob(dir + "/..*")
			must(t, err)
			if len(machinery) != 2 {
				t.Errorf("%s: left is %q, want one link and one directory", tc.reason, machinery)
			}
			if got, err := os.ReadFile(victim + "/keep"); err != nil || string(got) != "precious" {
				t.Errorf("the victim is %q: %v", got, err)
			}
		})
	}
}

func write(files map[string]payload) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		_, err := writeAtomically(dir, files, ignoreOwner)
		must(t, err)
	}
}

func link(target, name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
}

func TestReadersNeverSeeAMixture(t *testing.T) {
	dir := t.TempDir()
	write(texts("a", "0", "b", "0"))(t, dir)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// As a careful user does: one look at the link, then all files of it.
			now, err := os.Readlink(dir + "/..data")
			if err != nil {
				done <- err // the link is always there
				return
			}
			a, errA := os.ReadFile(filepath.Join(dir, now, "a"))
			b, errB := os.ReadFile(filepath.Join(dir, now, "b"))
			if errA == nil && errB == nil && string(a) != string(b) {
				done <- &os.PathError{Op: "compare", Path: string(a) + " and " + string(b), Err: os.ErrInvalid}
				return
			}
		}
	}()
	for i := range 200 {
		text := strings.Repeat("x", i)
		write(texts("a", text, "b", text))(t, dir)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNamesOfFiles(t *testing.T) {
	long := strings.Repeat("x", 256)
	cases := map[string]struct {
		reason string
		files  map[string]payload
		want   string
	}{
		"Absolute":      {"would be outside", texts("/etc/passwd", ""), `"/etc/passwd" cannot be`},
		"Out":           {"would be outside", texts("../x", ""), `"../x" cannot be`},
		"OutLater":      {"would be outside", texts("a/../../x", ""), "cannot be"},
		"Machinery":     {"names with two dots are the volume's own", texts("..data", ""), "cannot be"},
		"Empty":         {"is no name", texts("", ""), "cannot be"},
		"Dot":           {"is the volume itself", texts(".", ""), "cannot be"},
		"TrailingSlash": {"is a directory", texts("a/", ""), "cannot be"},
		"EmptyPart":     {"has no name", texts("a//b", ""), "cannot be"},
		"LongPart":      {"no file system takes it", texts(long, ""), "cannot be"},
		"FileAndDir":    {"cannot be both", texts("a", "", "a/b", ""), `"a" cannot be a file and hold "a/b"`},
		"FileAndDeep":   {"cannot be both", texts("a", "", "a/b/c", ""), `"a" cannot be a file and hold "a/b/c"`},
		"Good":          {"dots may begin a name", texts(".hidden", "", "a.b/c..d", "", "dir/..later", ""), ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := writeAtomically(dir, tc.files, ignoreOwner)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%s: error is %v, want %q", tc.reason, err, tc.want)
			}
			if left := len(tree(t, dir)); tc.want != "" && left > 0 {
				t.Errorf("%s: %d files were written", tc.reason, left)
			}
		})
	}
}
