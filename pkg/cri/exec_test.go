package cri

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
)

// heldProcess is a command that has ended while a child of it holds its streams.
type heldProcess struct {
	containerd.Process
	io      cio.IO
	deleted chan error
}

func (p *heldProcess) Pid() uint32 { return 1 }
func (p *heldProcess) IO() cio.IO  { return p.io }

func (p *heldProcess) Wait(context.Context) (<-chan containerd.ExitStatus, error) {
	exit := make(chan containerd.ExitStatus, 1)
	exit <- *containerd.NewExitStatus(0, time.Time{}, nil)
	return exit, nil
}

func (p *heldProcess) Kill(context.Context, syscall.Signal, ...containerd.KillOpts) error { return nil }

func (p *heldProcess) Delete(ctx context.Context, _ ...containerd.ProcessDeleteOpts) (*containerd.ExitStatus, error) {
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second): // as the shim does
	}
	p.deleted <- ctx.Err()
	return nil, ctx.Err()
}

func TestEndExec(t *testing.T) {
	cases := map[string]struct {
		reason string
		ends   bool // the agent
		want   error
	}{
		"Deleted":   {reason: "the shim is given the time it takes"},
		"AgentEnds": {reason: "the agent's end does not wait for it", ends: true, want: context.Canceled},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Runtime{cfg: Config{Log: slog.New(slog.DiscardHandler)}}
				r.life, r.end = context.WithCancel(t.Context())
				defer r.end()
				streams, err := cio.Load(&cio.FIFOSet{})
				if err != nil {
					t.Fatal(err)
				}
				p := &heldProcess{io: streams, deleted: make(chan error, 1)}
				begin := time.Now()
				client, gone := context.WithCancel(t.Context())
				gone() // the shim forgets whether or not the client still waits
				r.endExec(client, "c", p)
				if waited := time.Since(begin); waited > 0 {
					t.Errorf("the client waits %s for what it has no use for", waited)
				}
				if tc.ends {
					r.end()
				}
				if err := <-p.deleted; !errors.Is(err, tc.want) {
					t.Errorf("%s: got %v, want %v", tc.reason, err, tc.want)
				}
				if err := r.work.Wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestNotStarted(t *testing.T) {
	const oci = "OCI runtime exec failed: exec failed: unable to start container process: "
	cases := map[string]struct {
		reason  string
		err     string
		code    int
		message string
	}{
		"NotInPath":  {"a shell's code for a command that is not there", oci + `exec: "ls": executable file not found in $PATH`, 127, `cannot run "ls" in the container: executable file not found in $PATH`},
		"NoFile":     {"the same for a path", oci + `exec: "ls": stat /ls: no such file or directory`, 127, `cannot run "ls" in the container: no such file or directory`},
		"Directory":  {"a shell's code for what is no program", oci + `exec: "ls": is a directory`, 126, `cannot run "ls" in the container: is a directory`},
		"Mode":       {"a file that is not executable", oci + `exec: "ls": permission denied`, 126, `cannot run "ls" in the container: permission denied`},
		"Format":     {"a program for another machine", oci + "exec /ls: exec format error", 126, `cannot run "ls" in the container: exec format error`},
		"OurFault":   {"a failure of the machine is none of the command", oci + "cannot allocate memory", 0, ""},
		"OtherWords": {"a file that the runtime itself misses is none of the command", "open /run/shim/pid: no such file or directory", 0, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := notStarted([]string{"ls", "-l"}, errors.New(tc.err))
			var command *CommandError
			if is := errors.As(err, &command); is != (tc.code != 0) {
				t.Fatalf("%s: got %v", tc.reason, err)
			}
			if command != nil && (command.Code != tc.code || command.Error() != tc.message) {
				t.Errorf("%s: got %d, %q, want %d, %q", tc.reason, command.Code, command.Error(), tc.code, tc.message)
			}
		})
	}
}

// A shell's children end with it: they are in its process group.
func TestEndGroup(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe() // ends with the last process that has it
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d, err := openDaemon(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.close() }()                     // nothing is written to it
	if _, err := out.Read(make([]byte, 1)); err != nil { // the child runs
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing to do
		if err := d.endGroup(); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, out); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	}
}
