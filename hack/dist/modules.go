package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"unicode"
)

// buildInfo is what the Go linker wrote into a binary.
func buildInfo(f file) (*buildinfo.BuildInfo, error) {
	info, err := buildinfo.Read(bytes.NewReader(f.data))
	if err != nil {
		return nil, fmt.Errorf("build information of %s: %w", f.path, err)
	}
	return info, nil
}

// modules are those that a binary is made of, without the one it is built from
// when that is this repository.
func modules(info *buildinfo.BuildInfo) []*debug.Module {
	out := info.Deps
	if released(&info.Main) {
		out = append([]*debug.Module{&info.Main}, out...)
	}
	for i, m := range out {
		if m.Replace != nil {
			out[i] = m.Replace
		}
	}
	return out
}

// released says whether a module is a published version and not a work tree.
func released(m *debug.Module) bool { return strings.HasPrefix(m.Version, "v") }

// licences are the licence files of all modules in the binaries.
func (r release) licences(binaries []file) ([]file, error) {
	var out []file
	seen := map[string]bool{}
	for _, b := range binaries {
		info, err := buildInfo(b)
		if err != nil {
			return nil, err
		}
		for _, m := range modules(info) {
			name := m.Path + "@" + m.Version
			if seen[name] {
				continue
			}
			seen[name] = true
			found, err := licencesIn(filepath.Join(r.Modules, escape(name)))
			if err != nil {
				return nil, fmt.Errorf("licence of %s: %w", name, err)
			}
			out = append(out, under(docDir+"licenses/"+name, found)...)
		}
	}
	goLicence, err := os.ReadFile(filepath.Join(goEnv("GOROOT"), "LICENSE"))
	if err != nil {
		return nil, fmt.Errorf("licence of Go: %w", err)
	}
	return append(out, file{docDir + "licenses/go/LICENSE", 0o644, goLicence}), nil
}

// licencesIn are the files of a module that speak of its licence.
func licencesIn(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	licence := regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|unlicense)`)
	var out []file
	for _, e := range entries {
		if !e.Type().IsRegular() || !licence.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, file{e.Name(), 0o644, data})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("none in %s", dir)
	}
	return out, nil
}

// escape is how the module cache writes upper case.
func escape(name string) string {
	var out strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			out.WriteByte('!')
			r = unicode.ToLower(r)
		}
		out.WriteRune(r)
	}
	return out.String()
}

func moduleCache() (string, error) {
	dir := goEnv("GOMODCACHE")
	if dir == "" {
		return "", fmt.Errorf("go env GOMODCACHE says nothing")
	}
	return dir, nil
}

// goEnv is empty where go does not answer.
func goEnv(name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
