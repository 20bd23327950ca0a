package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// tarGz archives files, and the directories that they are in, below root and in
// the order of their names: the same files give the same bytes.
func tarGz(root string, files []file, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if err := writeTar(zip, root, files, at); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writeTar(w io.Writer, root string, files []file, at time.Time) error {
	out := tar.NewWriter(w)
	for _, f := range withDirectories(files) {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: root + "/" + f.path, Size: int64(len(f.data)), Mode: int64(f.mode.Perm()), ModTime: at,
			Uname: "root", Gname: "root", Format: tar.FormatGNU,
		}
		if f.mode.IsDir() {
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := out.Write(f.data); err != nil {
			return err
		}
	}
	return out.Close()
}

// withDirectories adds the directories that files are in, before them.
func withDirectories(files []file) []file {
	all := map[string]file{}
	for _, f := range files {
		all[f.path] = f
		for dir := path.Dir(f.path); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if _, known := all[dir]; !known {
				all[dir] = file{path: dir, mode: os.ModeDir | 0o755}
			}
		}
	}
	out := make([]file, 0, len(all))
	for _, f := range all {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b file) int {
		return cmp.Or(slices.Compare(strings.Split(a.path, "/"), strings.Split(b.path, "/")), cmp.Compare(a.path, b.path))
	})
	return out
}
