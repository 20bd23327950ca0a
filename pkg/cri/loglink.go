package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// maxFileName is the longest file name of common file systems, in bytes.
const maxFileName = 255

// logLink is the path under which log shippers look for a container's log; they
// read the pod, its namespace and the container from the name.
func logLink(dir string, p *podState, c *Container) string {
	name := fmt.Sprintf("%s_%s_%s-%s", p.name, p.namespace, c.Name, c.ID)
	const suffix = ".log"
	return filepath.Join(dir, name[:min(len(name), maxFileName-len(suffix))]+suffix)
}

// makeLogLink makes the link to a container's log, or mends it.
func makeLogLink(dir string, p *podState, c *Container) error {
	if dir == "" || c.LogPath == "" {
		return nil
	}
	if err := os.MkdirAll(dir, logRootMode); err != nil {
		return err
	}
	link := logLink(dir, p, c)
	err := os.Symlink(c.LogPath, link)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if to, err := os.Readlink(link); err == nil && to == c.LogPath {
		return nil
	}
	return errors.Join(os.Remove(link), os.Symlink(c.LogPath, link))
}

func removeLogLink(dir string, p *podState, c *Container) error {
	if dir == "" {
		return nil
	}
	err := os.Remove(logLink(dir, p, c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
