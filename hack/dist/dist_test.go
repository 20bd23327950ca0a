package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDebVersion(t *testing.T) {
	at := time.Date(2026, 11, 25, 10, 42, 0, 0, time.UTC)
	for name, tc := range map[string]struct{ reason, version, want string }{
		"Release":   {"a tag is a version", "v1.2.3", "1.2.3"},
		"Candidate": {"~ sorts before the release", "v1.2.3-rc.1", "1.2.3~rc.1"},
		"After":     {"commits after a tag sort after it", "v1.2.3-14-g0a1b2c3", "1.2.3+14.g0a1b2c3"},
		"Both":      {"also after a candidate", "v1.2.3-rc.1-2-g0a1b2c3-dirty", "1.2.3~rc.1+2.g0a1b2c3+dirty"},
		"NoTag":     {"a hash may begin with a digit and orders nothing", "0d1612a-dirty", "0.0.0+20261125104200.0d1612a.dirty"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := debVersion(tc.version, at); got != tc.want {
				t.Errorf("%s: got %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
}

// entry is what an archive says of a file.
type entry struct {
	Name, User string
	Mode       int64
	At         int64
	Data       string
}

func unpack(t *testing.T, data []byte) []entry {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out []entry
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{h.Name, fmt.Sprint(h.Uid, h.Uname), h.Mode, h.ModTime.Unix(), string(text)})
	}
}

func TestArchive(t *testing.T) {
	files := []file{{"run", 0o755, []byte("x")}, {"a/text", 0o644, []byte("y")}, {path: "empty", mode: os.ModeDir | 0o700}}
	at := time.Unix(1000, 0)
	data, err := tarGz("b", files, at)
	if err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{"b/a/", "0root", 0o755, 1000, ""}, {"b/a/text", "0root", 0o644, 1000, "y"},
		{"b/empty/", "0root", 0o700, 1000, ""}, {"b/run", "0root", 0o755, 1000, "x"},
	}
	if d := cmp.Diff(want, unpack(t, data)); d != "" {
		t.Errorf("an archive holds nothing of the machine it was made on (-want +got):\n%s", d)
	}
	slices.Reverse(files)
	if again, err := tarGz("b", files, at); err != nil || !bytes.Equal(data, again) {
		t.Errorf("the order in which files are found changes the archive (%v)", err)
	}
}

// repository is where the program is run.
func repository(t *testing.T) {
	t.Helper()
	t.Chdir("../..")
}

func TestDeb(t *testing.T) {
	repository(t)
	unit, err := os.ReadFile("manifests/systemd/nodeagent.service")
	if err != nil {
		t.Fatal(err)
	}
	r := release{Arch: "arm64", Version: "v1.2.3", Time: time.Unix(1000, 0)}
	data, err := r.deb([]file{
		{agentPath, 0o755, []byte("agent")}, {unitPath, 0o644, unit}, {docDir + "config.yaml", 0o644, []byte("config")}, {docDir + "LICENSE", 0o644, []byte("licence")},
	})
	if err != nil {
		t.Fatal(err)
	}
	members := map[string][]byte{}
	rest, ok := bytes.CutPrefix(data, []byte("!<arch>\n"))
	for ok && len(rest) > 60 {
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		if err != nil {
			t.Fatal(err)
		}
		members[strings.TrimSpace(string(rest[:16]))] = rest[60 : 60+size]
		rest = rest[60+size+size%2:]
	}
	got := map[string]string{}
	for _, member := range []string{"control.tar.gz", "data.tar.gz"} {
		for _, e := range unpack(t, members[member]) {
			got[e.Name] = e.Data
		}
	}
	for _, want := range []struct{ file, text string }{
		{"./control", "\nVersion: 1.2.3\nArchitecture: arm64\n"},
		{"./conffiles", "/etc/nodeagent/config.yaml\n"},
		{"./usr/lib/systemd/system/nodeagent.service", "\nExecStart=/usr/bin/nodeagent run "},
		{"./usr/bin/nodeagent", "agent"},
		{"./etc/nodeagent/config.yaml", "config"},
		{"./usr/share/doc/nodeagent/copyright", "licence"},
		{"./postinst", "#!/bin/sh\n"}, {"./prerm", "#!/bin/sh\n"}, {"./postrm", "#!/bin/sh\n"},
	} {
		if !strings.Contains(got[want.file], want.text) {
			t.Errorf("%s: no %q in:\n%s", want.file, want.text, got[want.file])
		}
	}
	for _, c := range conffiles() {
		if _, ok := got["./"+c]; !ok {
			t.Errorf("%s is a conffile that the package does not have", c)
		}
	}
	for name := range got {
		if strings.Contains(name, "local") {
			t.Errorf("%s: /usr/local belongs to the administrator", name)
		}
	}
}

func TestBill(t *testing.T) {
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	data, err := (release{Arch: "amd64", Version: "v1.2.3", Time: time.Unix(1000, 0).UTC()}).bill([]file{{"bin/x", 0o755, own}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var bill billOfMaterials
	if err := json.Unmarshal(data, &bill); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{bill.Metadata.Component.Ref: true}
	for _, c := range bill.Components {
		listed[c.Ref] = true
	}
	if !listed["bin/x"] {
		t.Errorf("the binary is missing:\n%s", data)
	}
	for _, d := range bill.Dependencies {
		for _, ref := range append(d.DependsOn, d.Ref) {
			if !listed[ref] {
				t.Errorf("%s is needed and not listed", ref)
			}
		}
	}
}

func TestProgram(t *testing.T) {
	cLibraries := []file{{path: docDir + "licenses/libseccomp_2.5.4-1+deb12u1"}}
	base := func() *buildinfo.BuildInfo {
		return &buildinfo.BuildInfo{
			GoVersion: "go1.26.6", Main: debug.Module{Path: "example.org/run", Version: "v0.9.0"},
			Deps:     []*debug.Module{{Path: "example.org/a", Version: "v1.0.0"}},
			Settings: []debug.BuildSetting{{Key: "CGO_ENABLED", Value: "0"}},
		}
	}
	std, run, a := "pkg:golang/std@1.26.6", "pkg:golang/example.org/run@v0.9.0", "pkg:golang/example.org/a@v1.0.0"
	for name, tc := range map[string]struct {
		reason  string
		change  func(*buildinfo.BuildInfo)
		version string
		want    []string
	}{
		"Released": {"a program has its module's version", func(*buildinfo.BuildInfo) {}, "v0.9.0", []string{std, run, a}},
		"Ours":     {"a work tree is the release itself", func(b *buildinfo.BuildInfo) { b.Main.Version = "(devel)" }, "v1.2.3", []string{std, a}},
		"Replaced": {"what was built in counts, not what was asked for", func(b *buildinfo.BuildInfo) {
			b.Deps[0].Replace = &debug.Module{Path: "example.org/fork", Version: "v1.0.1"}
		}, "v0.9.0", []string{std, run, "pkg:golang/example.org/fork@v1.0.1"}},
		"WithC": {"C libraries are linked in", func(b *buildinfo.BuildInfo) { b.Settings[0].Value = "1" }, "v0.9.0",
			[]string{std, run, a, "pkg:deb/debian/libseccomp@2.5.4-1%2Bdeb12u1"}},
	} {
		t.Run(name, func(t *testing.T) {
			info := base()
			tc.change(info)
			made, of := release{Version: "v1.2.3"}.program(file{path: binDir + "run"}, info, cLibraries)
			var got []string
			for _, p := range of {
				got = append(got, p.PURL)
			}
			if d := cmp.Diff(tc.want, got); d != "" || made.Version != tc.version {
				t.Errorf("%s: version %s, want %s; parts (-want +got):\n%s", tc.reason, made.Version, tc.version, d)
			}
		})
	}
	if c := library("pkg:deb/debian/libseccomp@2.5.4-1%2Bdeb12u1"); c.Name != "libseccomp" || c.Version != "2.5.4-1+deb12u1" {
		t.Errorf("a C library is %+v", c)
	}
}
