package cri

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/signal"
	corev1 "k8s.io/api/core/v1"
)

func TestStopSignal(t *testing.T) {
	cases := map[string]struct {
		reason string
		pod    string
		image  string
		want   string
	}{
		"Pod":       {reason: "the pod's choice is before the image's", pod: "SIGUSR1", image: "SIGQUIT", want: "SIGUSR1"},
		"Image":     {reason: "a web server wants to end after its last answer", image: "SIGQUIT", want: "SIGQUIT"},
		"Short":     {reason: "an image may leave SIG out", image: "quit", want: "SIGQUIT"},
		"Number":    {reason: "or give the number", image: "3", want: "SIGQUIT"},
		"RealTime":  {reason: "systemd's own", image: "RTMIN+3", want: "SIGRTMIN+3"},
		"RealTime2": {reason: "counted from the other end, as a status names it", pod: "SIGRTMAX-14", want: "SIGRTMAX-14"},
		"Last":      {reason: "the last", image: "64", want: "SIGRTMAX"},
		"None":      {reason: "the usual one", want: "SIGTERM"},
		"NoSuch":    {reason: "a signal that does not exist", image: "SIGNOPE", want: "SIGTERM"},
		"TooHigh":   {reason: "or a number", image: "65", want: "SIGTERM"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := &ContainerConfig{Container: &corev1.Container{}}
			cfg.Image.Config.StopSignal = tc.image
			if tc.pod != "" {
				cfg.Container.Lifecycle = &corev1.Lifecycle{StopSignal: new(corev1.Signal(tc.pod))}
			}
			if got := stopSignalOf(cfg); got != tc.want {
				t.Errorf("%s: got %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
	for _, sig := range signal.SignalMap {
		if got := parseSignal(signalName(sig)); got != sig {
			t.Errorf("signal %d is named %s, which is signal %d", sig, signalName(sig), got)
		}
	}
}

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
