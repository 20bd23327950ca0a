// Command mkimage builds the demo image from a static busybox.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nodeagent/nodeagent/internal/testimage"
)

func main() {
	out := flag.String("o", "busybox.tar", "archive to write")
	name := flag.String("name", "demo/busybox:1", "reference of the image")
	busybox := flag.String("busybox", "/bin/busybox", "static busybox binary")
	flag.Parse()
	if err := build(*out, *name, *busybox); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func build(out, name, busybox string) error {
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list the applets of %s: %w", busybox, err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(out + ".new") // whole at once: an agent may be watching
	if err != nil {
		return err
	}
	if err := testimage.Write(f, testimage.Busybox(name, binary, strings.Fields(string(applets)))); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(out+".new", out)
}
