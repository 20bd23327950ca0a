package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// bench is a container's IO with the test in the shim's place.
type bench struct {
	*containerIO
	t    *testing.T
	done chan struct{} // Run has returned
	end  context.CancelFunc
}

func testIOConfig(t *testing.T) ioConfig {
	t.Helper()
	dir := t.TempDir()
	h := NewHolder(dir, nil, quiet())
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return ioConfig{
		ID: "c1", Dir: filepath.Join(dir, "io"), LogPath: filepath.Join(dir, "logs", "default_web_uid", "main", "0.log"),
		Holder: h, Log: quiet(), MaxFiles: 5,
	}
}

func startIO(t *testing.T, cfg ioConfig) *bench {
	t.Helper()
	c, err := newContainerIO(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b := &bench{containerIO: c, t: t, done: make(chan struct{}), end: cancel}
	go func() {
		defer close(b.done)
		c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-b.done
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// writer opens a FIFO as the shim does: for writing, and for reading too, so that
// no reader is ever missed.
func (b *bench) writer(stream string) *os.File {
	b.t.Helper()
	w, err := os.OpenFile(filepath.Join(b.cfg.Dir, stream), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = w.Close() })
	return w
}

func (b *bench) awaitDrained() {
	b.t.Helper()
	select {
	case <-b.Drained():
	case <-time.After(10 * time.Second):
		b.t.Fatal("not drained")
	}
}

// stripped are the records of a log without their times.
func stripped(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for l := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(l, " ")
		out = append(out, rest)
	}
	return out
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestContainerIOWritesLog(t *testing.T) {
	b := startIO(t, testIOConfig(t))
	out, errs := b.writer(streamStdout), b.writer(streamStderr)
	for _, s := range []string{"one\ntw", "o\r\n", "\n", "thr"} {
		if _, err := out.WriteString(s); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // each wakes the pump on its own
	}
	if got := stripped(t, b.cfg.LogPath); len(got) != 3 {
		t.Errorf("before the end: %q", got)
	}
	if _, err := errs.WriteString("bad\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stderr in the log", func() bool { return len(stripped(t, b.cfg.LogPath)) == 4 })
	if err := errors.Join(out.Close(), errs.Close()); err != nil {
		t.Fatal(err)
	}
	b.awaitDrained()
	want := []string{"stdout F one\n", "stdout F two\n", "stdout F \n", "stderr F bad\n", "stdout P thr\n"}
	if diff := cmp.Diff(want, stripped(t, b.cfg.LogPath)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestContainerIOSplitsLongLines(t *testing.T) {
	cfg := testIOConfig(t)
	cfg.TTY = true
	b := startIO(t, cfg)
	out := b.writer(streamStdout)
	long := strings.Repeat("x", maxLogContent)
	for _, s := range []string{long, long, "yy\n", long, "\r\n"} {
		if _, err := io.WriteString(out, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	b.awaitDrained()
	want := []string{"stdout P " + long + "\n", "stdout P " + long + "\n", "stdout F yy\n", "stdout F " + long + "\n"}
	if diff := cmp.Diff(want, stripped(t, cfg.LogPath)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// A line that grows byte by byte must neither block its writer nor keep us busy.
func TestContainerIOPartialLineWaits(t *testing.T) {
	b := startIO(t, testIOConfig(t))
	out := b.writer(streamStdout)
	for range 3 * maxLogContent / 2 {
		if _, err := out.WriteString("z"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the first part in the log", func() bool { return len(stripped(t, b.cfg.LogPath)) == 1 })
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	if used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()); used > 100*time.Millisecond {
		t.Errorf("waiting for the end of a line took %s of CPU in 300ms", used)
	}
}

func TestContainerIOManyBytesBothStreams(t *testing.T) {
	cfg := testIOConfig(t)
	cfg.MaxSize, cfg.MaxFiles = 1<<20, 1000
	b := startIO(t, cfg)
	const lines = 60000
	var writers sync.WaitGroup
	for _, stream := range []string{streamStdout, streamStderr} {
		w := b.writer(stream)
		writers.Go(func() {
			defer w.Close()
			var block bytes.Buffer
			for i := range lines {
				fmt.Fprintf(&block, "%s %d %s\n", stream, i, strings.Repeat("p", i%100))
				if block.Len() > 3000 {
					if _, err := block.WriteTo(w); err != nil {
						t.Error(err)
						return
					}
				}
			}
			if _, err := block.WriteTo(w); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	b.awaitDrained()
	<-b.done
	for _, stream := range []string{streamStdout, streamStderr} {
		var out bytes.Buffer
		var err error
		if stream == streamStdout {
			err = ReadLogs(t.Context(), LogQuery{Path: cfg.LogPath, Tail: -1}, &out, nil)
		} else {
			err = ReadLogs(t.Context(), LogQuery{Path: cfg.LogPath, Tail: -1}, nil, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for l := range strings.Lines(out.String()) {
			if want := fmt.Sprintf("%s %d %s\n", stream, i, strings.Repeat("p", i%100)); l != want {
				t.Fatalf("%s line %d is %q", stream, i, l)
			}
			i++
		}
		if i != lines {
			t.Errorf("%s has %d of %d lines", stream, i, lines)
		}
	}
}

func TestContainerIONextAgentGoesOn(t *testing.T) {
	cfg := testIOConfig(t)
	b := startIO(t, cfg)
	out, errs := b.writer(streamStdout), b.writer(streamStderr)
	if _, err := out.WriteString("one\nhalf"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first line", func() bool { return len(stripped(t, cfg.LogPath)) == 1 })
	keep, err := os.OpenFile(filepath.Join(cfg.Dir, streamStdout), os.O_RDONLY|unix.O_NONBLOCK, 0) // the shim's spare end
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	b.end()
	<-b.done
	select {
	case <-b.Drained():
		t.Fatal("drained although the writers live")
	default:
	}
	if _, err := out.WriteString(" and half\n"); err != nil {
		t.Fatal(err)
	}
	next := startIO(t, cfg)
	if err := errors.Join(out.Close(), errs.Close()); err != nil {
		t.Fatal(err)
	}
	next.awaitDrained()
	if diff := cmp.Diff([]string{"stdout F one\n", "stdout F half and half\n"}, stripped(t, cfg.LogPath)); diff != "" {
		t.Errorf("log over two agents (-want +got):\n%s", diff)
	}
	<-next.done
	late, err := newContainerIO(cfg)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-late.Drained():
	default:
		t.Error("an agent that comes after the end does not know of it")
	}
	late.Run(t.Context()) // returns at once
	if err := late.Remove(); err != nil {
		t.Error(err)
	}
}
