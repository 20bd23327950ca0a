package cri

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestSignalInit(t *testing.T) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skip("this kernel has no cgroups")
	}
	own, _, _ := strings.Cut(string(data), "\n") // what a child's cgroup says too
	cases := map[string]struct {
		reason string
		id     string
		pid    func(child int) int
		want   bool
	}{
		"Ours":    {reason: "a process of the container gets the signal", id: own, pid: func(child int) int { return child }, want: true},
		"Another": {reason: "a number that means another process here must not hit it", id: "0123456789abcdef", pid: func(child int) int { return child }},
		"Unknown": {reason: "0 would be everybody", id: own, pid: func(int) int { return 0 }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			child := exec.Command("sleep", "1000")
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			if got := signalInit(tc.pid(child.Process.Pid), tc.id, syscall.SIGTERM); got != tc.want {
				t.Errorf("%s: got %t", tc.reason, got)
			}
			if !tc.want {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			_ = child.Wait() // reports the signal, which is what matters
			status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
			if want := map[bool]syscall.Signal{true: syscall.SIGTERM, false: syscall.SIGKILL}[tc.want]; !ok || status.Signal() != want {
				t.Errorf("%s: want it ended by %s, got %s", tc.reason, want, child.ProcessState)
			}
		})
	}
}
