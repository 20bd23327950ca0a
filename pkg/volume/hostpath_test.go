package volume

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

func TestHostPathTypes(t *testing.T) {
	dir, err := os.MkdirTemp("", "hp") // short: a unix socket's path has little room
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	writeFile(t, dir+"/file", "x")
	must(t, os.Symlink("file", dir+"/link"))
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	l, err := net.Listen("unix", dir+"/sock")
	must(t, err)
	defer l.Close()
	cases := map[string]struct {
		reason, path string
		kind         corev1.HostPathType
		want         string // part of the error
	}{
		"AnyFile":        {"no type accepts all", dir + "/file", corev1.HostPathUnset, ""},
		"AnyFIFO":        {"no type accepts all, and opens nothing", dir + "/fifo", corev1.HostPathUnset, ""},
		"AnyMissing":     {"no type makes a directory, as the runtime of a kubelet does", dir + "/new", corev1.HostPathUnset, ""},
		"Directory":      {"", dir, corev1.HostPathDirectory, ""},
		"NotDirectory":   {"", dir + "/file", corev1.HostPathDirectory, "is not a Directory"},
		"NoDirectory":    {"it must exist", dir + "/none", corev1.HostPathDirectory, dir + "/none is not a Directory"},
		"MakeDirectory":  {"missing parents too", dir + "/a/b", corev1.HostPathDirectoryOrCreate, ""},
		"FileInTheWay":   {"", dir + "/file", corev1.HostPathDirectoryOrCreate, "is not a DirectoryOrCreate"},
		"File":           {"", dir + "/file", corev1.HostPathFile, ""},
		"Link":           {"links are followed", dir + "/link", corev1.HostPathFile, ""},
		"NoFile":         {"", dir + "/none", corev1.HostPathFile, "is not a File"},
		"MakeFile":       {"", dir + "/made", corev1.HostPathFileOrCreate, ""},
		"MakeFileNoDir":  {"its directory must exist", dir + "/none/made", corev1.HostPathFileOrCreate, "no such file"},
		"DirIsNoFile":    {"", dir, corev1.HostPathFileOrCreate, "is not a FileOrCreate"},
		"FIFOIsNoFile":   {"", dir + "/fifo", corev1.HostPathFile, "is not a File"},
		"Socket":         {"", dir + "/sock", corev1.HostPathSocket, ""},
		"NotSocket":      {"", dir + "/file", corev1.HostPathSocket, "is not a Socket"},
		"CharDevice":     {"", "/dev/null", corev1.HostPathCharDev, ""},
		"NotBlockDevice": {"", "/dev/null", corev1.HostPathBlockDev, "is not a BlockDevice"},
		"UnknownType":    {"", dir, "Anything", "is not a Anything"},
		"Relative":       {"to what?", "etc", corev1.HostPathUnset, "is not absolute"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m, err := hostPath(&corev1.HostPathVolumeSource{Path: tc.path, Type: &tc.kind})
			if tc.want == "" {
				must(t, err)
				if m.HostPath != filepath.Clean(tc.path) || m.ReadOnly {
					t.Errorf("%s: got %+v", tc.reason, m)
				}
				if _, err := os.Stat(tc.path); err != nil {
					t.Errorf("%s: %v", tc.reason, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: error is %v, want %q", tc.reason, err, tc.want)
			}
		})
	}
}
