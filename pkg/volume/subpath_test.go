package volume

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenBeneath(t *testing.T) {
	cases := map[string]struct {
		reason string
		before func(t *testing.T, root string)
		sub    string
		want   string // below root; empty means that it is refused
	}{
		"There":      {"", func(t *testing.T, root string) { writeFile(t, root+"/a/b", "x") }, "a/b", "/a/b"},
		"Unclean":    {"", func(t *testing.T, root string) { writeFile(t, root+"/a/b", "x") }, "./a//b", "/a/b"},
		"Made":       {"a missing directory is made", nil, "new/deep", "/new/deep"},
		"LinkInside": {"links within the volume count", func(t *testing.T, root string) { writeFile(t, root+"/real/f", "x"); link("real", "l")(t, root) }, "l/f", "/real/f"},
		"LinkUp": {"also those that go up, but not out", func(t *testing.T, root string) {
			writeFile(t, root+"/real/f", "x")
			must(t, os.Mkdir(root+"/d", 0o755))
			link("../real", "d/l")(t, root)
		}, "d/l/f", "/real/f"},
		"MadeInLink":   {"", func(t *testing.T, root string) { must(t, os.Mkdir(root+"/real", 0o755)); link("real", "l")(t, root) }, "l/new", "/real/new"},
		"Up":           {"", nil, "../x", ""},
		"UpLater":      {"", nil, "a/../../x", ""},
		"Absolute":     {"", nil, "/etc", ""},
		"LinkToRoot":   {"", link("/", "l"), "l", ""},
		"LinkOut":      {"", link("../..", "l"), "l/etc", ""},
		"LinkOutMade":  {"nothing is made outside", link("..", "l"), "l/planted", ""},
		"LinkToProc":   {"", link("/proc/self/root", "l"), "l/etc", ""},
		"LinkDangling": {"", link("none", "l"), "l", ""},
		"LinkLoop":     {"", link("l", "l"), "l", ""},
		"BelowFile":    {"", func(t *testing.T, root string) { writeFile(t, root+"/f", "x") }, "f/x", ""},
		"FIFO":         {"is not opened: nobody waits for a writer", func(t *testing.T, root string) { must(t, unix.Mkfifo(root+"/p", 0o600)) }, "p", "/p"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			root := outside + "/volume"
			must(t, os.Mkdir(root, 0o755))
			must(t, os.Chmod(root, 0o777))
			if tc.before != nil {
				tc.before(t, root)
			}
			fd, err := openBeneath(root, tc.sub)
			if tc.want == "" {
				if err == nil {
					t.Errorf("%s: it was opened", tc.reason)
				}
				if entries, _ := os.ReadDir(outside); len(entries) != 1 {
					t.Errorf("something was made outside: %v", entries)
				}
				return
			}
			must(t, err)
			defer unix.Close(fd)
			if got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil || got != root+tc.want {
				t.Errorf("%s: opened %s, %v, want %s", tc.reason, got, err, root+tc.want)
			}
			info, err := os.Stat(root + tc.want)
			must(t, err)
			if strings.Contains(tc.want, "new") && info.Mode().Perm() != 0o777 {
				t.Errorf("a directory was made with mode %v, want that of the volume", info.Mode())
			}
		})
	}
}
