package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dataLink    = "..data"
	dataLinkTmp = "..data_tmp"
)

// ours matches the directories that contents lie in.
var ours = regexp.MustCompile(`^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$`)

// writeAtomically makes files the content of dir, all at once: they lie in a
// directory of their own, which a single rename of a link puts in place of the
// old one. own is called on that directory before anyone can see it. It reports
// whether the content was another. A crash at any point is mended by the next call.
func writeAtomically(dir string, files map[string]payload, own func(path string) error) (bool, error) {
	if err := checkNames(files); err != nil {
		return false, err
	}
	current, err := currentOf(dir)
	if err != nil {
		return false, err
	}
	changed := current == "" || !same(filepath.Join(dir, current), files)
	if changed {
		if current, err = replace(dir, files, own); err != nil {
			return false, err
		}
	}
	if err := linkFiles(dir, files); err != nil {
		return false, err
	}
	return changed, removeStale(dir, current, files)
}

// currentOf is the directory that the link points at; empty means that there is
// none. A link that was not made here is not followed: it is replaced.
func currentOf(dir string) (string, error) {
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL): // none, or not a link
		return "", nil
	case err != nil:
		return "", err
	case !ours.MatchString(current):
		return "", nil
	}
	info, err := os.Lstat(filepath.Join(dir, current))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return "", nil
	}
	return current, err
}

// replace puts a new directory in the place of the current one.
func replace(dir string, files map[string]payload, own func(path string) error) (string, error) {
	next, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return "", err
	}
	if err := errors.Join(fill(next, files), own(next)); err != nil {
		return "", errors.Join(err, os.RemoveAll(next))
	}
	tmp := filepath.Join(dir, dataLinkTmp)
	// A crash between the next two steps leaves the temporary link.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.Symlink(filepath.Base(next), tmp); err != nil {
		return "", err
	}
	return filepath.Base(next), os.Rename(tmp, filepath.Join(dir, dataLink))
}

// checkNames refuses files that would be outside of the volume or in each
// other's place.
func checkNames(files map[string]payload) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := checkName(name); err != nil {
			return err
		}
		for parent := filepath.Dir(name); parent != "."; parent = filepath.Dir(parent) {
			if _, taken := files[parent]; taken {
				return fmt.Errorf("%q cannot be a file and hold %q", parent, name)
			}
		}
	}
	return nil
}

// checkName refuses names that would leave the volume or hide its machinery.
func checkName(name string) error {
	if name == "" || !filepath.IsLocal(name) || strings.HasPrefix(name, "..") || len(name) > 4096 {
		return fmt.Errorf("%q cannot be the path of a file in a volume", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || len(part) > 255 {
			return fmt.Errorf("%q cannot be the path of a file in a volume", name)
		}
	}
	return nil
}

func fill(dir string, files map[string]payload) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := mkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, 0o600); err != nil {
			return err
		}
		if f.owner != nil {
			if err := os.Chown(path, int(*f.owner), -1); err != nil {
				return fmt.Errorf("give %s to user %d: %w", name, *f.owner, err)
			}
		}
		if err := os.Chmod(path, f.mode); err != nil { // whatever the umask says
			return err
		}
	}
	return nil
}

// same says whether dir holds just these files.
func same(dir string, files map[string]payload) bool {
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fs.ErrInvalid
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if f, wanted := files[rel]; !wanted || !bytes.Equal(f.data, data) {
			return fs.ErrInvalid
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

// linkFiles makes the links that users see, one for each first component.
func linkFiles(dir string, files map[string]payload) error {
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		link, target := filepath.Join(dir, first), filepath.Join(dataLink, first)
		if old, err := os.Readlink(link); err == nil && old == target {
			continue
		}
		if err := os.RemoveAll(link); err != nil { // somebody else's, or a directory for a subPath
			return err
		}
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	return nil
}

// removeStale removes what belongs to older contents.
func removeStale(dir, current string, files map[string]payload) error {
	wanted := map[string]bool{dataLink: true, current: true}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		wanted[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !wanted[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
