package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// file is one file, or an empty directory, of what is packed.
type file struct {
	path string // without a slash in front
	mode os.FileMode
	data []byte
}

// Where things are, below /usr/local or /usr. The defaults of the configuration
// name both.
const (
	agentPath = "bin/nodeagent"
	binDir    = "lib/nodeagent/bin/"
	cniDir    = "lib/nodeagent/cni/"
	unitPath  = "lib/systemd/system/nodeagent.service"
	docDir    = "share/doc/nodeagent/"
)

// tree lists all files, and the bill of materials which is one of them.
func (r release) tree() (files []file, bill []byte, err error) {
	binaries, err := r.binaries()
	if err != nil {
		return nil, nil, err
	}
	libraries, err := read(filepath.Join(r.Tools, "clib"), docDir+"licenses/", 0o644)
	if err != nil {
		return nil, nil, err
	}
	if bill, err = r.bill(binaries, libraries); err != nil {
		return nil, nil, err
	}
	licences, err := r.licences(binaries)
	if err != nil {
		return nil, nil, err
	}
	documents, err := readAll(map[string]string{
		"manifests/systemd/nodeagent.service": unitPath,
		"manifests/config/nodeagent.yaml":     docDir + "config.yaml",
		"manifests/systemd/hardened.conf":     docDir + "examples/hardened.conf",
		"README.md":                           docDir + "README.md",
		"CHANGELOG.md":                        docDir + "CHANGELOG.md",
		"LICENSE":                             docDir + "LICENSE",
	})
	if err != nil {
		return nil, nil, err
	}
	samples, err := read("manifests/static", docDir+"examples/", 0o644)
	if err != nil {
		return nil, nil, err
	}
	for _, more := range [][]file{binaries, libraries, licences, documents, samples} {
		files = append(files, more...)
	}
	return append(files, file{docDir + "sbom.cdx.json", 0o644, bill}), bill, nil
}

// binaries are the programs, in the order in which the bill names them.
func (r release) binaries() ([]file, error) {
	data, err := os.ReadFile(r.Agent)
	if err != nil {
		return nil, err
	}
	out := []file{{agentPath, 0o755, data}}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		data, err := os.ReadFile(filepath.Join(r.Tools, "bin", name))
		if err != nil {
			return nil, err
		}
		out = append(out, file{binDir + name, 0o755, data})
	}
	plugins, err := read(filepath.Join(r.Tools, "cni"), cniDir, 0o755)
	return append(out, plugins...), err
}

// read reads all files of a directory.
func read(dir, as string, mode os.FileMode) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s is empty", dir)
	}
	var out []file
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, file{as + e.Name(), mode, data})
	}
	return out, nil
}

// readAll reads files that get other names.
func readAll(as map[string]string) ([]file, error) {
	var out []file
	for from, to := range as {
		data, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		out = append(out, file{to, 0o644, data})
	}
	return out, nil
}

// under moves files below a directory.
func under(dir string, files []file) []file {
	out := make([]file, 0, len(files))
	for _, f := range files {
		f.path = dir + "/" + f.path
		out = append(out, f)
	}
	return out
}
