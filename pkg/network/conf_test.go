package network

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// dirs returns a configuration for a machine with the named plugins.
func dirs(t *testing.T, plugins ...string) Config {
	t.Helper()
	root := t.TempDir()
	cfg := Config{
		ConfDir:  filepath.Join(root, "net.d"),
		BinDirs:  []string{filepath.Join(root, "bin")},
		CacheDir: filepath.Join(root, "cache"),
		Log:      slog.New(slog.DiscardHandler),
	}
	for _, p := range plugins {
		put(t, filepath.Join(cfg.BinDirs[0], p), "#!/bin/sh\n")
	}
	return cfg
}

func put(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

const (
	listA = `{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge","ipam":{"type":"host-local"}}]}`
	listB = `{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"ptp"}]}`
)

func TestReady(t *testing.T) {
	cases := map[string]struct {
		reason   string
		files    map[string]string
		plugins  []string
		wantName string
		wantText string
	}{
		"NoDirectory": {
			reason:   "a bare machine is told what to install",
			wantText: "install a CNI network",
		},
		"FirstWins": {
			reason:   "lexical order, as in every CNI runtime",
			files:    map[string]string{"20-b.conflist": listB, "10-a.conflist": listA},
			plugins:  []string{"bridge", "host-local", "ptp"},
			wantName: "a",
		},
		"OtherFiles": {
			reason:   "editors and installers leave files that are no configuration",
			files:    map[string]string{"05-a.conflist.tmp": "{", "README": "", "20-b.conflist": listB},
			plugins:  []string{"ptp"},
			wantName: "b",
		},
		"SinglePlugin": {
			reason:   "the old form with one plugin per file",
			files:    map[string]string{"10.conf": `{"cniVersion":"0.4.0","name":"old","type":"ptp"}`},
			plugins:  []string{"ptp"},
			wantName: "old",
		},
		"Broken": {
			reason:   "the file is named",
			files:    map[string]string{"10-a.conflist": "{"},
			wantText: "10-a.conflist",
		},
		"MissingPlugin": {
			reason:   "every missing plugin at once, the address manager too",
			files:    map[string]string{"10-a.conflist": listA},
			wantText: "bridge, host-local not found",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := dirs(t, tc.plugins...)
			for file, content := range tc.files {
				put(t, filepath.Join(cfg.ConfDir, file), content)
			}
			c := New(cfg)
			err := c.Ready()
			if tc.wantText == "" {
				if err != nil {
					t.Fatalf("%s: %v", tc.reason, err)
				}
				if diff := cmp.Diff(tc.wantName, c.list.Name); diff != "" {
					t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
				}
				return
			}
			if !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), tc.wantText) {
				t.Errorf("%s: got %v, want ErrNotReady with %q", tc.reason, err, tc.wantText)
			}
		})
	}
}

func TestRunFollowsTheDirectory(t *testing.T) {
	cfg := dirs(t, "bridge", "host-local", "ptp")
	c := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()

	put(t, filepath.Join(cfg.ConfDir, "20-b.conflist"), listB)
	await(t, c, "b", "a network that appears is used")
	put(t, filepath.Join(cfg.ConfDir, "10-a.conflist"), listA)
	await(t, c, "a", "an earlier file takes over")
	if err := os.RemoveAll(cfg.ConfDir); err != nil {
		t.Fatal(err)
	}
	await(t, c, "", "no configuration, no network")
	put(t, filepath.Join(cfg.ConfDir, "30-b.conflist"), listB)
	await(t, c, "b", "a directory made anew is followed")
}

func await(t *testing.T, c *CNI, network, reason string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		name := ""
		if list, err := c.current(); err == nil {
			name = list.Name
		}
		if name == network {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still on network %q, want %q", reason, name, network)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
