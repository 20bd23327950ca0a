package cri

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// safeBuffer is a Buffer for two goroutines.
type safeBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (b *bench) attach(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) <-chan error {
	b.t.Helper()
	b.watch.mu.Lock()
	before := len(b.watch.watching)
	b.watch.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- b.Attach(ctx, stdin, stdout, stderr) }()
	eventually(b.t, "attached", func() bool {
		b.watch.mu.Lock()
		defer b.watch.mu.Unlock()
		return len(b.watch.watching) > before || b.watch.over || len(done) > 0
	})
	return done
}

func TestAttachShowsPromptsAtOnce(t *testing.T) {
	cfg := testIOConfig(t)
	cfg.TTY = true
	b := startIO(t, cfg)
	var one, two safeBuffer
	first := b.attach(t.Context(), nil, &one, nil)
	out := b.writer(streamStdout)
	for _, s := range []string{"login: ", "root\r\n", "# "} {
		if _, err := out.WriteString(s); err != nil {
			t.Fatal(err)
		}
		want := s
		eventually(t, "client sees "+s, func() bool { return strings.HasSuffix(one.String(), want) })
	}
	second := b.attach(t.Context(), nil, &two, nil)
	if _, err := out.WriteString("ls\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	for _, done := range []<-chan error{first, second} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got, want := one.String(), "login: root\r\n# ls\r\n"; got != want {
		t.Errorf("the first client saw %q, want %q", got, want)
	}
	if got, want := two.String(), "ls\r\n"; got != want {
		t.Errorf("the second client saw %q, want %q", got, want)
	}
	if err := b.Attach(t.Context(), nil, &one, nil); err != nil {
		t.Errorf("attach after the end: %v", err)
	}
}

// A client that reads gets everything, however fast the container prints and
// however busy the machine is; one that does not holds nobody up for long.
func TestAttachDropsOnlyWhoDoesNotRead(t *testing.T) {
	b := startIO(t, testIOConfig(t))
	pr, pw := io.Pipe() // nobody reads
	stuck := b.attach(t.Context(), nil, pw, pw)
	var reading safeBuffer
	ctx, cancel := context.WithCancel(t.Context())
	reader := b.attach(ctx, nil, &reading, io.Discard)
	out := b.writer(streamStdout)
	const lines = 8000
	for range lines {
		if _, err := out.WriteString(strings.Repeat("x", 999) + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the log is complete", func() bool { return len(stripped(t, b.cfg.LogPath)) == lines })
	eventually(t, "the client that reads has all", func() bool { return len(reading.String()) == lines*1000 })
	_ = pr.Close() // the stuck write fails, as on a closed connection
	if err := <-stuck; err == nil {
		t.Error("the client that does not read was not dropped")
	}
	cancel()
	if err := <-reader; !errors.Is(err, context.Canceled) {
		t.Errorf("attach after its context: %v", err)
	}
}

// fill shows an audience as much as makes its spectators fall behind.
func fill(a *audience) {
	for range maxBacklog/1000 + 1 {
		a.show(streamStdout, make([]byte, 1000))
	}
}

func TestAudienceWaits(t *testing.T) {
	cases := map[string]struct {
		reason string
		act    func(a *audience, s *spectator, end context.CancelFunc)
		waited time.Duration
		why    error
	}{
		"Stuck": {"a client that takes nothing is dropped, and told so",
			func(*audience, *spectator, context.CancelFunc) {}, attachPatience, errTooSlow},
		"Slow": {"one that takes something is waited for",
			func(a *audience, s *spectator, _ context.CancelFunc) {
				time.Sleep(attachPatience / 2)
				_, _, _ = a.take(s) // only that it takes matters
			}, attachPatience / 2, nil},
		"Gone": {"nobody waits for one that has left",
			func(a *audience, s *spectator, _ context.CancelFunc) { a.dismiss(s, nil) }, 0, nil},
		"AgentEnds": {"an agent that ends does not wait",
			func(_ *audience, _ *spectator, end context.CancelFunc) { end() }, 0, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a audience
				s := a.join(true, true)
				a.awaitRoom(t.Context()) // nothing is there yet
				fill(&a)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				go tc.act(&a, s, cancel)
				a.awaitRoom(ctx)
				if waited := time.Since(began); waited != tc.waited {
					t.Errorf("%s: waited %s, want %s", tc.reason, waited, tc.waited)
				}
				synctest.Wait()
				if _, _, why := a.take(s); !errors.Is(why, tc.why) {
					t.Errorf("%s: the client is told %v, want %v", tc.reason, why, tc.why)
				}
			})
		})
	}
}

// writerFunc is a function as a writer.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAudienceWaitsForASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a audience
		s := a.join(true, true)
		fill(&a)
		slow := writerFunc(func(p []byte) (int, error) {
			time.Sleep(attachPatience / 100) // all that is queued takes ten times the patience
			return len(p), nil
		})
		ended := make(chan error, 1)
		go func() { ended <- a.deliver(t.Context(), s, slow, slow) }()
		synctest.Wait()
		fill(&a)
		a.awaitRoom(t.Context())
		a.end(nil)
		if err := <-ended; err != nil {
			t.Errorf("a client that reads, however slowly, is waited for; this one was told %v", err)
		}
	})
}

func TestAttachStdin(t *testing.T) {
	cases := map[string]struct {
		reason    string
		once, tty bool
		wantEOF   bool
	}{
		"Once":    {"StdinOnce: the container's stdin ends with its first client", true, false, true},
		"Kept":    {"otherwise it stays open for the next", false, false, false},
		"OnceTTY": {"a terminal's stdin is not closed", true, true, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := testIOConfig(t)
			cfg.Stdin, cfg.StdinOnce, cfg.TTY = true, tc.once, tc.tty
			told := make(chan struct{}, 1)
			cfg.StdinClosed = func() error { told <- struct{}{}; return nil }
			b := startIO(t, cfg)
			in, err := os.OpenFile(filepath.Join(cfg.Dir, stdinName), os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			var out safeBuffer
			done := b.attach(t.Context(), strings.NewReader("hello"), &out, nil)
			buf := make([]byte, 16)
			if n, err := in.Read(buf); string(buf[:n]) != "hello" {
				t.Fatalf("the container read %q, %v", buf[:n], err)
			}
			if !tc.wantEOF {
				if err := <-done; err != nil {
					t.Errorf("%s: attach: %v", tc.reason, err)
				}
				_ = in.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if _, err := in.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: %v", tc.reason, err)
				}
				return
			}
			<-told
			if _, err := in.Read(buf); !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", tc.reason, err)
			}
			if !b.marked(stdinClosedName) {
				t.Error("the next agent would open stdin again")
			}
			w, errs := b.writer(streamStdout), b.writer(streamStderr)
			if _, err := w.WriteString("bye\n"); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Close(), errs.Close()
			if err := <-done; err != nil || out.String() != "bye\n" {
				t.Errorf("output after stdin's end: %q, %v", out.String(), err)
			}
		})
	}
}

// A client that vanishes in the middle must leave nothing behind.
func TestAttachEndsWithContext(t *testing.T) {
	cfg := testIOConfig(t)
	cfg.Stdin = true
	b := startIO(t, cfg)
	shim, err := os.OpenFile(filepath.Join(cfg.Dir, stdinName), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer shim.Close()
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		pr, pw := io.Pipe()
		done := b.attach(ctx, pr, io.Discard, io.Discard)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		_ = pw.Close() // the connection
	}
	b.watch.mu.Lock()
	defer b.watch.mu.Unlock()
	if n := len(b.watch.watching); n != 0 {
		t.Errorf("%d clients are still attached", n)
	}
}
