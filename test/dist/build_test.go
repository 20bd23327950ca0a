//go:build integration && !systemd

package dist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const repo = "../.."

// command returns what was printed, or fails the test with the complaint.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, append(os.Environ(), env...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// copyRepository copies the sources as they are now; what is built in .cache is
// shared.
func copyRepository(t *testing.T, dir string) {
	t.Helper()
	root, err := filepath.Abs(repo)
	if err != nil {
		t.Fatal(err)
	}
	command(t, nil, "bash", "-c", `set -euo pipefail; mkdir -p "$2"; cd "$1"
		git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents -P -t "$2"; ln -s "$1/.cache" "$2/.cache"`, "copy", root, dir)
}

// TestSameBytes builds a release twice, in directories of other names and depths.
func TestSameBytes(t *testing.T) {
	var outs []string
	for _, dir := range []string{t.TempDir() + "/a", t.TempDir() + "/of/another/depth"} {
		copyRepository(t, dir)
		command(t, []string{"VERSION=v1.2.3", "SOURCE_DATE_EPOCH=1700000000"}, dir+"/hack/dist.sh", dir+"/dist", runtime.GOARCH)
		outs = append(outs, dir+"/dist")
	}
	first, second := files(t, outs[0]), files(t, outs[1])
	if len(first) != 4 || len(second) != 4 {
		t.Errorf("an archive, a package, a bill and checksums, not %d and %d files", len(first), len(second))
	}
	for name, data := range first {
		if !bytes.Equal(data, second[name]) {
			t.Errorf("%s is not the same twice", name)
		}
	}
	command(t, nil, "bash", "-c", `cd "$1" && sha256sum --quiet --check SHA256SUMS && test $(wc -l <SHA256SUMS) = 3`, "check", outs[0])
	contents(t, first)
	debianPackage(t, outs[0])
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, e := range entries {
		if out[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// contents looks into the archive: static programs of the right machine, each in
// the bill with its checksum, and a licence for everything that is in them.
func contents(t *testing.T, release map[string][]byte) {
	t.Helper()
	name := "nodeagent-v1.2.3-linux-" + runtime.GOARCH
	inside := untar(t, release[name+".tar.gz"], name+"/")
	var bill struct {
		Components []struct {
			Type, Name, Version string
			Ref                 string `json:"bom-ref"`
			Hashes              []struct{ Content string }
		}
	}
	if err := json.Unmarshal(release[name+".cdx.json"], &bill); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(inside["share/doc/nodeagent/sbom.cdx.json"], release[name+".cdx.json"]) {
		t.Error("the bill beside the archive is not the one in it")
	}
	billed := map[string]bool{}
	for _, c := range bill.Components {
		if c.Type == "application" {
			billed[c.Ref] = true
			if got := fmt.Sprintf("%x", sha256.Sum256(inside[c.Ref])); len(c.Hashes) != 1 || c.Hashes[0].Content != got {
				t.Errorf("%s has the checksum %s, not what the bill says: %v", c.Ref, got, c.Hashes)
			}
			continue
		}
		if licence := licence(c.Name, c.Version); !strings.Contains(strings.Join(names(inside), "\n"), licence) {
			t.Errorf("%s %s has no licence: no %s", c.Name, c.Version, licence)
		}
	}
	for path, data := range inside {
		program := strings.HasPrefix(path, "bin/") || strings.HasPrefix(path, "lib/nodeagent/")
		if program != billed[path] {
			t.Errorf("%s is a program: %v, and in the bill: %v", path, program, billed[path])
		}
		if program {
			checkStatic(t, path, data)
		}
	}
	for _, path := range []string{
		"bin/nodeagent", "lib/nodeagent/bin/containerd", "lib/nodeagent/bin/containerd-shim-runc-v2", "lib/nodeagent/bin/runc",
		"lib/nodeagent/cni/bridge", "lib/systemd/system/nodeagent.service", "share/doc/nodeagent/config.yaml",
		"share/doc/nodeagent/examples/guaranteed.yaml", "share/doc/nodeagent/examples/hardened.conf", "share/doc/nodeagent/LICENSE",
	} {
		if len(inside[path]) == 0 {
			t.Errorf("%s is missing", path)
		}
	}
}

// licence is a part of the path of a licence.
func licence(name, version string) string {
	switch name {
	case "std":
		return "licenses/go/"
	case "libseccomp", "glibc":
		return "licenses/" + name + "_" + version
	default:
		return "licenses/" + name + "@" + version + "/"
	}
}

func names(inside map[string][]byte) []string {
	var out []string
	for name := range inside {
		out = append(out, name)
	}
	return out
}

func untar(t *testing.T, data []byte, root string) map[string][]byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(h.Name, root)
		if !ok {
			t.Errorf("%s is not below %s", h.Name, root)
		}
		if h.Typeflag == tar.TypeReg {
			if out[name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func checkStatic(t *testing.T, path string, data []byte) {
	t.Helper()
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	program, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	if program.Machine != machine {
		t.Errorf("%s is for %s, want %s", path, program.Machine, machine)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s wants a dynamic linker", path)
		}
	}
}

// debianPackage has dpkg look at the package.
func debianPackage(t *testing.T, dir string) {
	t.Helper()
	deb := filepath.Join(dir, "nodeagent_1.2.3_"+runtime.GOARCH+".deb")
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("not a Debian")
	}
	if got := strings.TrimSpace(command(t, nil, "dpkg-deb", "--field", deb, "Architecture")); got != runtime.GOARCH {
		t.Errorf("architecture %s", got)
	}
	root := t.TempDir()
	command(t, nil, "dpkg-deb", "--raw-extract", deb, root)
	command(t, nil, "bash", "-c", `cd "$1" && md5sum --quiet --check DEBIAN/md5sums`, "check", root)
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		command(t, nil, "sh", "-n", filepath.Join(root, "DEBIAN", script))
	}
}
