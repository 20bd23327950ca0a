// Command nodeagent makes a Linux machine run Kubernetes Pods and enforce what
// their resources say. The same binary is the agent (`nodeagent run`) and the
// local client that looks at it (`nodeagent get pods`, `nodeagent cgroups`, …).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	utilexec "k8s.io/utils/exec"
)

// exitInterrupted is what a shell shows for a program that SIGINT has ended.
const exitInterrupted = 128 + int(syscall.SIGINT)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := exitCode(newRootCommand().ExecuteContext(ctx))
	stop()
	os.Exit(code)
}

// exitCode reports err to the user and returns what the process should exit
// with: the remote command's own code for exec, else 0 or 1. A user who breaks
// a command off need not be told so.
func exitCode(err error) int {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		fmt.Fprintln(os.Stderr, exit.Error())
		return exit.ExitStatus()
	case errors.Is(err, context.Canceled): // only the signals that main waits for do that
		return exitInterrupted
	default:
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
}
