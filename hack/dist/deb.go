package main

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// conffiles are what an upgrade leaves as the administrator has made it.
func conffiles() []string { return []string{"etc/default/nodeagent", "etc/nodeagent/config.yaml"} }

// deb packs files as a Debian package: see deb(5).
func (r release) deb(files []file) ([]byte, error) {
	data, err := debFiles(files)
	if err != nil {
		return nil, err
	}
	control, err := r.control(data)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	member := func(name string, data []byte) {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, r.Time.Unix(), 0, 0, "100644", len(data))
		out.Write(data)
		if len(data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	member("debian-binary", []byte("2.0\n"))
	for _, part := range []struct {
		name  string
		files []file
	}{{"control.tar.gz", control}, {"data.tar.gz", data}} {
		packed, err := tarGz(".", part.files, r.Time)
		if err != nil {
			return nil, err
		}
		member(part.name, packed)
	}
	return out.Bytes(), nil
}

// debFiles are the same files where Debian wants them, configured.
func debFiles(files []file) ([]file, error) {
	var out []file
	for _, f := range under("usr", files) {
		switch f.path {
		case "usr/" + unitPath:
			f.data = bytes.ReplaceAll(f.data, []byte("/usr/local/"), []byte("/usr/"))
		case "usr/" + docDir + "config.yaml":
			f.path = "etc/nodeagent/config.yaml"
		case "usr/" + docDir + "LICENSE":
			f.path = "usr/" + docDir + "copyright"
		}
		out = append(out, f)
	}
	more, err := readAll(map[string]string{"hack/dist/debian/default": "etc/default/nodeagent"})
	if err != nil {
		return nil, err
	}
	// Manifests may hold Secrets.
	more = append(more, file{path: "etc/kubernetes/manifests", mode: os.ModeDir | 0o700})
	return append(out, more...), nil
}

// control is what dpkg knows of the package, and runs.
func (r release) control(data []file) ([]file, error) {
	scripts, err := readAll(map[string]string{"hack/dist/debian/postinst": "postinst", "hack/dist/debian/prerm": "prerm", "hack/dist/debian/postrm": "postrm"})
	if err != nil {
		return nil, err
	}
	for i := range scripts {
		scripts[i].mode = 0o755
	}
	var sums, conf strings.Builder
	size := 0
	for _, f := range withDirectories(data) {
		size += max(1, (len(f.data)+1023)/1024)
		if !f.mode.IsDir() {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.data), f.path)
		}
	}
	for _, c := range conffiles() {
		fmt.Fprintf(&conf, "/%s\n", c)
	}
	text := fmt.Sprintf(`Package: nodeagent
Version: %s
Architecture: %s
Maintainer: nodeagent maintainers <maintainers@nodeagent.dev>
Installed-Size: %d
Depends: init-system-helpers, iptables
Section: admin
Priority: optional
Homepage: https://github.com/nodeagent/nodeagent
Description: runs Kubernetes pods on this machine
 A kubelet-lite: one program that runs the pods of a directory of manifests, or
 of a cluster, and enforces what their resources say. Comes with a containerd of
 its own, which it uses where none runs.
`, debVersion(r.Version, r.Time), r.Arch, size)
	return append(scripts,
		file{"control", 0o644, []byte(text)}, file{"md5sums", 0o644, []byte(sums.String())}, file{"conffiles", 0o644, []byte(conf.String())}), nil
}

// debVersion turns what git describes into a version that dpkg orders as it was
// meant: a release candidate before its release, commits after it. Without a
// release to count from it is the time that orders.
func debVersion(version string, at time.Time) string {
	described := regexp.MustCompile(`^v?(\d+(?:\.\d+)+)(?:-([a-z]+[.\d]*))?(?:-(\d+)-(g[0-9a-f]+))?(-dirty)?$`)
	m := described.FindStringSubmatch(version)
	if m == nil {
		other := regexp.MustCompile(`[^A-Za-z0-9.+~]+`).ReplaceAllString(version, ".")
		return "0.0.0+" + at.Format("20060102150405") + "." + other
	}
	out := m[1]
	if m[2] != "" {
		out += "~" + m[2]
	}
	if m[3] != "" {
		out += "+" + m[3] + "." + m[4]
	}
	if m[5] != "" {
		out += "+dirty"
	}
	return out
}
