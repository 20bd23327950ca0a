package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// release is what one run packs. Paths are relative to the repository.
type release struct {
	Arch    string
	Version string    // as git describes it
	Agent   string    // the agent's binary
	Tools   string    // has bin and cni, and clib with the licences of C libraries
	Modules string    // Go's module cache
	Time    time.Time // of every file
}

func main() {
	var r release
	flag.StringVar(&r.Arch, "arch", "", "architecture, such as amd64")
	flag.StringVar(&r.Version, "version", "", "version, such as v1.2.3")
	flag.StringVar(&r.Agent, "agent", "bin/nodeagent", "the agent's binary")
	flag.StringVar(&r.Tools, "tools", ".cache", "directory of the other binaries")
	out := flag.String("out", "dist", "directory to write to")
	flag.Parse()
	if err := pack(r, *out); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func pack(r release, out string) error {
	if r.Arch == "" || r.Version == "" {
		return errors.New("-arch and -version must be given")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	r.Time = time.Unix(seconds, 0).UTC()
	if r.Modules, err = moduleCache(); err != nil {
		return err
	}
	files, bill, err := r.tree()
	if err != nil {
		return err
	}
	archive, err := tarGz(r.name(), files, r.Time)
	if err != nil {
		return err
	}
	deb, err := r.deb(files)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		r.name() + ".tar.gz": archive,
		fmt.Sprintf("nodeagent_%s_%s.deb", debVersion(r.Version, r.Time), r.Arch): deb,
		r.name() + ".cdx.json": bill,
	} {
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r release) name() string { return fmt.Sprintf("nodeagent-%s-linux-%s", r.Version, r.Arch) }
