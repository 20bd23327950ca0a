package cri

import (
	"strings"
	"testing"
)

func TestShimID(t *testing.T) {
	valid := []string{"/opt/bin/containerd-shim-runc-v2", "-namespace", "nodeagent", "-id", "abc", "-address", "/run/c.sock"}
	cases := map[string]struct {
		reason string
		args   []string
		want   string
	}{
		"OwnShim":        {reason: "a shim of our namespace", args: valid, want: "abc"},
		"OtherNamespace": {reason: "a kubelet's shims are not ours", args: []string{valid[0], "-namespace", "k8s.io", "-id", "abc"}},
		"OtherProgram":   {reason: "only the program itself counts, not who names it", args: append([]string{"grep"}, valid...)},
		"NoID":           {reason: "a flag without its value names nothing", args: valid[:4]},
		"Kernel":         {reason: "kernel threads have no command line"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var cmdline string
			for _, a := range c.args {
				cmdline += a + "\x00"
			}
			if got := shimID(cmdline, "nodeagent"); got != c.want {
				t.Errorf("%s: shimID(%q) = %q, want %q", c.reason, strings.ReplaceAll(cmdline, "\x00", " "), got, c.want)
			}
		})
	}
}
