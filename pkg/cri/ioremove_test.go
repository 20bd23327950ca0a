package cri

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestContainerIORemove(t *testing.T) {
	cases := map[string]struct {
		reason string
		use    func(b *bench)
		want   []string
	}{
		"NeverWritten": {"a task that could not be created leaves nothing behind", func(*bench) {}, nil},
		"Ended": {"what was printed last is not lost", func(b *bench) {
			w := b.writer(streamStdout)
			if _, err := w.WriteString("bye"); err != nil {
				b.t.Fatal(err)
			}
			_ = w.Close()
		}, []string{"stdout P bye\n"}},
		"StillWriting": {"a grandchild that keeps the pipe is not waited for", func(b *bench) {
			if _, err := b.writer(streamStdout).WriteString("x\ny"); err != nil {
				b.t.Fatal(err)
			}
		}, []string{"stdout F x\n"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			b := startIO(t, testIOConfig(t))
			eventually(t, "it runs", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.cancel != nil
			})
			tc.use(b)
			for range 2 {
				if err := b.Remove(); err != nil {
					t.Error(err)
				}
			}
			<-b.done
			if _, err := os.Stat(b.cfg.Dir); !os.IsNotExist(err) {
				t.Errorf("directory stayed: %v", err)
			}
			if diff := cmp.Diff(tc.want, stripped(t, b.cfg.LogPath)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestContainerIORemoveBeforeRun(t *testing.T) {
	c, err := newContainerIO(testIOConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	c.Run(t.Context()) // must not hang
}

func TestContainerIOLeavesNothingOpen(t *testing.T) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	cfg := testIOConfig(t)
	run := func() {
		b := startIO(t, cfg)
		out, errs := b.writer(streamStdout), b.writer(streamStderr)
		_, err := out.WriteString("x\n")
		if err := errors.Join(err, out.Close(), errs.Close()); err != nil {
			t.Fatal(err)
		}
		b.awaitDrained()
		<-b.done
		if err := b.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	run()
	fds, goroutines := count(), runtime.NumGoroutine()
	for range 20 {
		run()
	}
	if now := count(); now > fds+3*2*runtime.GOMAXPROCS(0) { // peekers are kept for later
		t.Errorf("%d descriptors open, %d before", now, fds)
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
}

func TestContainerIOLosesOnlyWhatTheDiskRefuses(t *testing.T) {
	cfg := testIOConfig(t)
	b := startIO(t, cfg)
	out, errs := b.writer(streamStdout), b.writer(streamStderr)
	// The log's directory becomes unusable: the container must go on all the same.
	if err := b.log.close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Dir(cfg.LogPath)), os.WriteFile(filepath.Dir(cfg.LogPath), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := out.WriteString(strings.Repeat("x", 8000) + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the FIFO is empty", func() bool {
		var n int
		err := at(b.pumps[0].fifo, func(fd int) (err error) { n, err = unix.IoctlGetInt(fd, unix.TIOCINQ); return err })
		return err == nil && n == 0
	})
	if err := errors.Join(os.Remove(filepath.Dir(cfg.LogPath))); err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteString("back\n"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(out.Close(), errs.Close()); err != nil {
		t.Fatal(err)
	}
	b.awaitDrained()
	if diff := cmp.Diff([]string{"stdout F back\n"}, stripped(t, cfg.LogPath)); diff != "" {
		t.Errorf("log after the disk came back (-want +got):\n%s", diff)
	}
}
