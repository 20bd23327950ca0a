package cri

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestEmbeddedConfig(t *testing.T) {
	long := "/" + strings.Repeat("d", 50)
	cases := map[string]struct {
		reason  string
		e       Embedded
		want    []string
		without string
	}{
		"Plain": {"all sockets are below the state directory", Embedded{Dir: "/lib/a", State: "/run/a"}, []string{
			"version = 4\n", "imports = []\n", "root = \"/lib/a/root\"\n", "state = \"/run/a\"\n", "level = \"info\"\n",
			"[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/run/a/containerd.sock\"\n",
			"[plugins.\"io.containerd.server.v1.ttrpc\"]\naddress = \"/run/a/containerd.sock.ttrpc\"\n",
			"[plugins.\"io.containerd.shim.v1.manager\"]\nsocket_dir = \"/run/a/s\"\n",
		}, ""},
		"LongPath":    {"containerd refuses a long directory for shims; its own choice serves", Embedded{Dir: long}, []string{"address = \"" + long + "/state/containerd.sock\"\n"}, "socket_dir"},
		"NoCRI":       {"a node without a CRI does not pay for one", Embedded{Dir: "/a"}, []string{"\"io.containerd.grpc.v1.cri\","}, ""},
		"Level":       {"the level can be chosen", Embedded{Dir: "/a", LogLevel: "debug"}, []string{"level = \"debug\"\n"}, ""},
		"OddNamePath": {"a path is data", Embedded{Dir: "/a\"]\\\n"}, []string{`root = "/a\"]\\\u000A/root"` + "\n"}, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := tc.e.config()
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s: %q is not in\n%s", tc.reason, want, got)
				}
			}
			if tc.without != "" && strings.Contains(got, tc.without) {
				t.Errorf("%s: %q is in\n%s", tc.reason, tc.without, got)
			}
		})
	}
}

func TestEmbeddedForgetsStateOfAnotherBoot(t *testing.T) {
	e := &Embedded{Dir: t.TempDir(), Log: quiet()}
	stale := filepath.Join(e.state(), "stale")
	steps := []struct {
		reason string
		boot   string
		stays  bool
	}{
		{"the same boot: containers run", "", true},
		{"another boot: nothing of it is left", "before", false},
	}
	for _, s := range steps {
		if err := errors.Join(e.prepare(), os.WriteFile(stale, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if s.boot != "" {
			if err := os.WriteFile(filepath.Join(e.state(), "boot"), []byte(s.boot), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.prepare(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(stale); (err == nil) != s.stays {
			t.Errorf("%s: %v", s.reason, err)
		}
	}
}

func TestEmbeddedDoesNotTrustAnOldPID(t *testing.T) {
	e := &Embedded{Dir: t.TempDir(), Log: quiet()}
	if err := e.prepare(); err != nil {
		t.Fatal(err)
	}
	self, err := processID(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		reason, file string
		want         bool
	}{
		"None":   {"no file, no process", "", false},
		"Torn":   {"half a file is none", "12", false},
		"Ended":  {"a process that has ended is none", "999999999 x/1\n", false},
		"Other":  {"the number was given to another process", "PID other/1\n", false},
		"Itself": {"the process that was started", "PID " + self + "\n", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := os.Remove(e.pidPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			content := strings.ReplaceAll(tc.file, "PID", pidString())
			if content != "" {
				if err := os.WriteFile(e.pidPath(), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d, err := e.running()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.close() })
			if (d != nil) != tc.want {
				t.Errorf("%s: %v", tc.reason, d)
			}
		})
	}
}

func TestTidyDaemonLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "containerd.log")
	w, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString(strings.Repeat("old line\n", maxDaemonLog/9+1)); err != nil {
		t.Fatal(err)
	}
	if err := tidyDaemonLog(path); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("new line\n"); err != nil { // by the same descriptor
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "new line\n" {
		t.Errorf("log after it was put aside: %d bytes, %v", len(got), err)
	}
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() < maxDaemonLog {
		t.Errorf("what was put aside: %v, %v", info, err)
	}
}

func pidString() string { return strconv.Itoa(os.Getpid()) }
