// Command testreport makes the output of several `go test -json` runs readable,
// and says at the end what was skipped.
//
//	testreport run STAGE -- COMMAND...      runs the command, which prints test2json events
//	testreport close STAGE...               sums up the stages; fails if one failed or is missing
//
// What a stage found lies in .cache/report/STAGE.json in between.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	reportDir = ".cache/report"
	// allowFile lists the skips that are no gap, one regular expression of
	// "package.Test: reason" per line.
	allowFile = "hack/testreport/allowed-skips.txt"
)

func main() {
	code, err := dispatch(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	os.Exit(code)
}

func dispatch(args []string, out io.Writer) (int, error) {
	switch {
	case len(args) > 3 && args[0] == "run" && args[2] == "--":
		return runStage(args[1], args[3:], out)
	case len(args) > 1 && args[0] == "close":
		return closeStages(args[1:], out)
	default:
		return 2, errors.New("usage: testreport run STAGE -- COMMAND, or testreport close STAGE")
	}
}

func runStage(stage string, command []string, out io.Writer) (int, error) {
	if err := os.MkdirAll(reportDir, 0o755); err != nil {
		return 1, err
	}
	file := filepath.Join(reportDir, stage+".json")
	// A crash of this program must not leave an older success behind.
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 1, err
	}
	start := time.Now()
	fmt.Fprintf(out, "=== %s\n", stage)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	c := newCollector(out)
	readErr := c.read(stdout)
	runErr := cmd.Wait()

	r := c.report(stage, time.Since(start))
	var exit *exec.ExitError
	switch {
	case readErr != nil:
		r.Error = readErr.Error()
	case errors.As(runErr, &exit) && len(r.Failed) == 0:
		r.Error = fmt.Sprintf("%s: %v", command[0], runErr)
	case runErr != nil && exit == nil:
		r.Error = runErr.Error()
	case r.Passed+len(r.Failed)+len(r.Skipped) == 0:
		r.Error = "no test was run"
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return 1, err
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return 1, err
	}
	fmt.Fprintln(out, r)
	if r.bad() {
		return 1, nil
	}
	return 0, nil
}

func closeStages(stages []string, out io.Writer) (int, error) {
	allowed, err := readAllowed(allowFile)
	if err != nil {
		return 1, err
	}
	var reports []report
	for _, stage := range stages {
		r := report{Stage: stage}
		data, err := os.ReadFile(filepath.Join(reportDir, stage+".json"))
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			r.Error = "did not report: " + err.Error()
		}
		reports = append(reports, r)
	}
	// By hand, a skip is told; CI and whoever asks for it fails.
	strict := os.Getenv("CI") == "true" || os.Getenv("REQUIRED_SKIPS_FAIL") == "1"
	if !summarise(out, reports, allowed, strict) {
		return 1, nil
	}
	return 0, nil
}
