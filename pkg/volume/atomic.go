package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	dataLink    = "..data"
	dataLinkTmp = "..data_tmp"
)

// writeAtomically makes files the content of dir, all at once: they lie in a
// directory of their own, which a single rename of a link puts in place of the
// old one. own is called on that directory before anyone can see it. It reports
// whether the content was another.
func writeAtomically(dir string, files map[string]payload, own func(path string) error) (bool, error) {
	for name := range files {
		if err := checkName(name); err != nil {
			return false, err
		}
	}
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if current != "" && same(filepath.Join(dir, current), files) {
		return false, linkFiles(dir, files)
	}
	next, err := os.MkdirTemp(dir, time.Now().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return false, err
	}
	if err := fill(next, files); err != nil {
		return false, errors.Join(err, os.RemoveAll(next))
	}
	if err := own(next); err != nil {
		return false, errors.Join(err, os.RemoveAll(next))
	}
	tmp := filepath.Join(dir, dataLinkTmp)
	// A crash between the next two steps leaves the temporary link.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.Symlink(filepath.Base(next), tmp); err != nil {
		return false, err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return false, err
	}
	if err := linkFiles(dir, files); err != nil {
		return false, err
	}
	return true, removeStale(dir, filepath.Base(next), files)
}

// checkName refuses names that would leave the volume or hide its machinery.
func checkName(name string) error {
	if name == "" || !filepath.IsLocal(name) || strings.HasPrefix(name, "..") || len(name) > 4096 {
		return fmt.Errorf("%q cannot be the path of a file in a volume", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || len(part) > 255 {
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
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return err
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
		err := os.Symlink(filepath.Join(dataLink, first), filepath.Join(dir, first))
		if err != nil && !errors.Is(err, fs.ErrExist) {
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
