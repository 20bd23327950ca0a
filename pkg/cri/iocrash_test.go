package cri

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// numbers prints numbered lines at full speed until told to stop, in writes that
// have nothing to do with lines, as a shim does.
type numbers struct {
	stop    atomic.Bool
	printed int // after run has returned
}

func (n *numbers) run(w *os.File, more int) error {
	var buf bytes.Buffer
	write := func(size int) error {
		_, err := w.Write(buf.Next(size))
		return err
	}
	for !n.stop.Load() || more > 0 {
		if n.stop.Load() {
			more--
		}
		fmt.Fprintf(&buf, "number %d %s.\n", n.printed, strings.Repeat("=", n.printed%90))
		n.printed++
		for buf.Len() >= 4096 {
			if err := write(1 + rand.IntN(4096)); err != nil {
				return err
			}
		}
	}
	return write(buf.Len())
}

// checkNumbers reads the whole log and wants each number, in order but for
// repetitions, on a line that is whole.
func checkNumbers(t *testing.T, path, stream string, printed int) {
	t.Helper()
	parts, err := openLogs(path)
	if err != nil {
		t.Fatal(err)
	}
	defer closeLogs(parts)
	format := regexp.MustCompile(`^number (\d+) (=*)\.$`)
	next, repeated := 0, 0
	for _, p := range parts {
		lines := bufio.NewScanner(p.lines)
		for lines.Scan() {
			r, ok := parseRecord(lines.Bytes())
			if !ok {
				t.Fatalf("%s: torn record %q", p.name, lines.Text())
			}
			if r.stream != stream {
				continue
			}
			m := format.FindSubmatch(r.content)
			if m == nil || !r.whole {
				t.Fatalf("%s: torn line %q", p.name, lines.Text())
			}
			i, err := strconv.Atoi(string(m[1]))
			if err != nil || len(m[2]) != i%90 || i > next {
				t.Fatalf("%s: %q where number %d is due (%v)", p.name, lines.Text(), next, err)
			}
			if i == next {
				next++
			} else {
				repeated++
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if next != printed {
		t.Errorf("%s: %d of %d numbers are in the log", stream, next, printed)
	}
	t.Logf("%s: %d lines, %d repeated, %d files", stream, next, repeated, len(parts))
}

// The agent is killed at random moments while a container prints as fast as it
// can on both streams; in the end the container exits while no agent lives.
func TestKilledAgentLosesNoLine(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 20
	}
	dir := shortTempDir(t)
	h := startTestHolder(t, dir)
	cfg := crashConfig(dir)
	cfg.Holder, cfg.Log = h, quiet()
	first, err := newContainerIO(cfg) // makes the FIFOs, and leaves them to the holder
	if err != nil {
		t.Fatal(err)
	}
	streams := []string{streamStdout, streamStderr}
	var writers sync.WaitGroup
	printing := map[string]*numbers{}
	for _, stream := range streams {
		w, err := os.OpenFile(filepath.Join(cfg.Dir, stream), os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		n := &numbers{}
		printing[stream] = n
		writers.Go(func() {
			if err := errors.Join(n.run(w, 400), w.Close()); err != nil {
				t.Errorf("the container noticed: %v", err)
			}
		})
	}
	h.forget(cfg.Dir)
	if err := errors.Join(first.close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	for range kills {
		agent := startPump(t, dir)
		// From before its first look to well into its work.
		time.Sleep(15*time.Millisecond + time.Duration(rand.IntN(60_000))*time.Microsecond)
		if err := agent.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = agent.Wait() // it was killed
	}
	// Without an agent: what does not fit in the FIFO is printed once one is back.
	for _, n := range printing {
		n.stop.Store(true)
	}
	time.Sleep(20 * time.Millisecond)
	last := startPump(t, dir)
	ended := make(chan error, 1)
	go func() { ended <- last.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(60 * time.Second):
		_ = last.Process.Kill()
		t.Fatal("the last agent did not see the end")
	}
	writers.Wait()
	for _, stream := range streams {
		checkNumbers(t, cfg.LogPath, stream, printing[stream].printed)
	}
}

// The container prints its last lines and exits, the shim's ends are closed, and
// no agent lives: the holder alone has the output.
func TestExitWithoutAgentLosesNothing(t *testing.T) {
	dir := shortTempDir(t)
	h := startTestHolder(t, dir)
	cfg := crashConfig(dir)
	cfg.Holder, cfg.Log = h, quiet()
	first, err := newContainerIO(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var ws []*os.File
	for _, stream := range []string{streamStdout, streamStderr} {
		w, err := os.OpenFile(filepath.Join(cfg.Dir, stream), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		ws = append(ws, w)
	}
	h.forget(cfg.Dir)
	if err := errors.Join(first.close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	_, err1 := ws[0].WriteString("last words\nand one more")
	_, err2 := ws[1].WriteString("sorry\n")
	if err := errors.Join(err1, err2, ws[0].Close(), ws[1].Close()); err != nil {
		t.Fatal(err)
	}
	if err := startPump(t, dir).Wait(); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, r := range stripped(t, cfg.LogPath) {
		got[r] = true
	}
	for _, want := range []string{"stdout F last words\n", "stdout P and one more\n", "stderr F sorry\n"} {
		if !got[want] {
			t.Errorf("%q is missing from %v", want, got)
		}
	}
}
