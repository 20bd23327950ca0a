// Command narrow is an OCI runtime for machines that lack CAP_SYS_RESOURCE: it
// takes out of a bundle what such a machine cannot grant, and then is runc. Docker's
// --privileged asks for all of it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// runcVariable names the real runtime.
const runcVariable = "NARROW_RUNC"

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "narrow:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	runc := os.Getenv(runcVariable)
	if runc == "" {
		return errors.New(runcVariable + " is not set: it is the path of runc")
	}
	may, err := has(unix.CAP_SYS_RESOURCE)
	if err != nil {
		return err
	}
	if file, isProcess := document(args); file != "" && !may {
		if err := rewrite(file, isProcess); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return unix.Exec(runc, append([]string{runc}, args[1:]...), os.Environ())
}

// has says whether the machine may give a capability to a process.
func has(capability uintptr) (bool, error) {
	bounding, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, capability, 0, 0, 0)
	return bounding == 1, err
}

// document is the file that tells runc what to start: a bundle's configuration, or
// the process file of exec.
func document(args []string) (file string, isProcess bool) {
	verb := slices.IndexFunc(args, func(a string) bool { return a == "create" || a == "run" || a == "exec" || a == "restore" })
	if verb < 0 {
		return "", false
	}
	value := func(names ...string) string {
		for i, a := range args[verb:] {
			for _, name := range names {
				if v, ok := strings.CutPrefix(a, name+"="); ok {
					return v
				}
				if a == name && verb+i+1 < len(args) {
					return args[verb+i+1]
				}
			}
		}
		return ""
	}
	if args[verb] == "exec" {
		return value("--process", "-p"), true
	}
	bundle := value("--bundle", "-b")
	if bundle == "" {
		bundle = "."
	}
	return filepath.Join(bundle, "config.json"), false
}

func rewrite(file string, isProcess bool) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	process := doc
	if !isProcess {
		process, _ = doc["process"].(map[string]any)
	}
	narrow(process)
	if data, err = json.Marshal(doc); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// narrow takes out of a process what only CAP_SYS_RESOURCE can give.
func narrow(process map[string]any) {
	delete(process, "rlimits")
	delete(process, "oomScoreAdj")
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		list, _ := set.([]any)
		sets[name] = slices.DeleteFunc(list, func(c any) bool { return c == "CAP_SYS_RESOURCE" })
	}
}
