package podsource

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// keeper holds copies of manifests as they were when last good. They are written
// after their pods were handed on, and without waiting for the disk: a copy that
// is lost or torn is as good as none.
type keeper struct {
	dir string // empty keeps nothing
}

func (k keeper) path(file string) string {
	sum := sha256.Sum256([]byte(file))
	return filepath.Join(k.dir, hex.EncodeToString(sum[:16]))
}

// load returns the copy of a file, or nothing.
func (k keeper) load(file string) []byte {
	if k.dir == "" {
		return nil
	}
	data, err := os.ReadFile(k.path(file))
	if err != nil {
		return nil
	}
	return data
}

// save replaces the copy of a file. Secrets may be in it.
func (k keeper) save(file string, data []byte) error {
	if k.dir == "" {
		return nil
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	path := k.path(file)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	return nil
}

// prune drops the copies of all files but these.
func (k keeper) prune(files map[string]*entry) error {
	if k.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune kept manifests: %w", err)
	}
	wanted := map[string]bool{}
	for file := range files {
		wanted[k.path(file)] = true
	}
	var errs []error
	for _, e := range entries {
		if path := filepath.Join(k.dir, e.Name()); !wanted[path] {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}
