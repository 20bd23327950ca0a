//go:build integration

package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// session is a client that is still running.
type session struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

// client prepares a client command; it is killed when it takes too long.
func (m *machine) client(args ...string) *session {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	m.t.Cleanup(cancel)
	s := &session{cmd: exec.CommandContext(ctx, m.bin, append([]string{"--socket", m.dir + "/run/agent.sock"}, args...)...)}
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	return s
}

// processes are the command lines in a container that contain word.
func (m *machine) processes(pod, word string) []string {
	m.t.Helper()
	var found []string
	for line := range strings.Lines(m.run("exec", pod, "--", "ps", "-o", "args")) {
		if strings.Contains(line, word) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func TestExec(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("box.yaml", sleeper("box", "c"))
	m.start()
	m.await("box", "ready", ready)

	random := make([]byte, 3<<20)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	type result struct {
		Code           int
		Stdout, Stderr string
	}
	cases := map[string]struct {
		reason string
		stdin  string
		args   []string
		want   result
	}{
		"Success":    {"the streams stay apart", "", []string{"--", "sh", "-c", "echo out; echo err >&2"}, result{0, "out\n", "err\n"}},
		"Fails":      {"the command's code is the client's", "", []string{"--", "sh", "-c", "exit 7"}, result{7, "", "command terminated with exit code 7\n"}},
		"Killed":     {"a signal is 128 and its number", "", []string{"--", "sh", "-c", "kill -9 $$"}, result{137, "", "command terminated with exit code 137\n"}},
		"Missing":    {"as in a shell", "", []string{"--", "nosuch"}, result{127, "", "cannot run \"nosuch\" in the container: executable file not found in $PATH\ncommand terminated with exit code 127\n"}},
		"NoProgram":  {"as in a shell", "", []string{"--", "/etc"}, result{126, "", "cannot run \"/etc\" in the container: is a directory\ncommand terminated with exit code 126\n"}},
		"StdinEnds":  {"the command sees the end of its input", "hi\n", []string{"-i", "--", "cat"}, result{0, "hi\n", ""}},
		"NoStdin":    {"without -i there is none", "hi\n", []string{"--", "cat"}, result{0, "", ""}},
		"Binary":     {"every byte goes in and out, however many", string(random), []string{"-i", "--", "cat"}, result{0, string(random), ""}},
		"Container":  {"an unknown container is named", "", []string{"-c", "nope", "--", "ls"}, result{1, "", "error: pod box-node has no container \"nope\"; it has c\n"}},
		"Background": {"a child that keeps the streams does not hold the client", "", []string{"--", "sh", "-c", "sleep 30 & echo ok"}, result{0, "ok\n", ""}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"exec", "box"}, tc.args...)
			s := m.client(args...)
			s.cmd.Stdin = strings.NewReader(tc.stdin)
			err := s.cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			got := result{s.cmd.ProcessState.ExitCode(), s.stdout.String(), s.stderr.String()}
			if got != tc.want {
				if len(tc.want.Stdout) > 1000 {
					t.Fatalf("%s: code %d, %d of %d bytes, stderr %q", tc.reason, got.Code, len(got.Stdout), len(tc.want.Stdout), got.Stderr)
				}
				t.Errorf("%s (-want +got):\n%s", tc.reason, cmp.Diff(tc.want, got))
			}
		})
	}

	t.Run("ManyAtOnce", func(t *testing.T) {
		var clients sync.WaitGroup
		for i := range 100 {
			s := m.client("exec", "box", "--", "echo", fmt.Sprint(i))
			clients.Go(func() {
				if err := s.cmd.Run(); err != nil || s.stdout.String() != fmt.Sprintln(i) {
					t.Errorf("exec %d: %v, %q, %s", i, err, s.stdout.String(), s.stderr.String())
				}
			})
		}
		clients.Wait()
	})
	t.Run("ClientKilled", func(t *testing.T) {
		s := m.client("exec", "box", "--", "sh", "-c", "sleep 4321; true")
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		m.eventually("the command runs", func() error {
			if len(m.processes("box", "sleep 4321")) < 2 { // the shell and its child
				return errors.New("not yet")
			}
			return nil
		})
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = s.cmd.Wait() // it was killed
		m.eventually("the command has ended with its client", func() error {
			if left := m.processes("box", "sleep 4321"); len(left) > 0 {
				return fmt.Errorf("there is still %q", left)
			}
			return nil
		})
	})
}

// terminal runs a client command on a terminal of its own.
type terminal struct {
	*session
	t      *testing.T
	master *os.File
	mu     sync.Mutex // guards seen
	seen   strings.Builder
}

func (m *machine) terminal(args ...string) *terminal {
	m.t.Helper()
	master, slave := openPTY(m.t)
	term := &terminal{session: m.client(args...), t: m.t, master: master}
	term.resize(30, 100)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := errors.Join(term.cmd.Start(), slave.Close()); err != nil {
		m.t.Fatal(err)
	}
	go func() { // ends when the last process lets the terminal go
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func (x *terminal) resize(rows, columns uint16) {
	x.t.Helper()
	if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) has(text string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.Contains(x.seen.String(), text)
}

// expect waits until the terminal shows text.
func (x *terminal) expect(text string) {
	x.t.Helper()
	for end := time.Now().Add(patience); !x.has(text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			x.mu.Lock()
			defer x.mu.Unlock()
			seen := x.seen.String()
			x.t.Fatalf("the terminal never shows %q; it ends with %q", text, seen[max(0, len(seen)-500):])
		}
	}
}

// ask sends a command until its answer is there: a new size takes a moment to
// get through.
func (x *terminal) ask(command, answer string) {
	x.t.Helper()
	for end := time.Now().Add(patience); !x.has(answer) && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		x.send(command)
	}
	x.expect(answer)
}

func TestTerminals(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("box.yaml", sleeper("box", "c"))
	m.manifest("shell.yaml", `apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: demo/busybox:1, command: [sh], stdin: true, tty: true}
`)
	m.start()
	m.await("box", "ready", ready)
	m.await("shell", "ready", ready)

	x := m.terminal("exec", "-it", "box", "--", "sh")
	x.ask("stty size\n", "30 100\r\n")
	x.resize(41, 133)
	x.ask("stty size\n", "41 133\r\n")
	x.send("seq 1 200000; exit 5\n")
	_ = x.cmd.Wait() // the code is looked at
	x.expect("\r\n200000\r\n")
	if got := x.cmd.ProcessState.ExitCode(); got != 5 {
		t.Errorf("exec -it ended with %d, want the shell's 5", got)
	}

	a := m.terminal("attach", "-it", "shell")
	a.ask("stty size\n", "30 100\r\n")
	a.resize(42, 134)
	a.ask("stty size\n", "42 134\r\n")
	a.send("seq 1 300000; echo fin$((3+3))\n") // more than waits for a client at once
	a.expect("\r\n300000\r\nfin6")
	if err := a.cmd.Process.Kill(); err != nil { // the container goes on
		t.Fatal(err)
	}
	_ = a.cmd.Wait() // it was killed
	b := m.terminal("attach", "-it", "shell")
	b.send("echo again$((4+4)); exit 3\n")
	b.expect("again8")
	_ = b.cmd.Wait() // ends with the container
	m.await("shell", "ended with the shell's code", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0].State.Terminated
		return s != nil && s.ExitCode == 3
	})
}

func TestAttachedInput(t *testing.T) {
	m := newMachine(t, "", "")
	for _, name := range []string{"once", "open"} {
		m.manifest(name+".yaml", fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: demo/busybox:1, command: [sh, -c, "cat; echo done"], stdin: true, stdinOnce: %t}
`, name, name == "once"))
	}
	m.start()
	m.await("once", "ready", ready)
	m.await("open", "ready", ready)
	attach := func(pod, input string) {
		t.Helper()
		s := m.client("attach", "-i", pod)
		s.cmd.Stdin = strings.NewReader(input)
		if err := s.cmd.Run(); err != nil {
			t.Errorf("attach %s: %v: %s", pod, err, s.stderr.String())
		}
	}
	attach("once", "hello\n")
	m.await("once", "succeeded: its input has ended", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	if got := m.run("logs", "once"); got != "hello\ndone\n" {
		t.Errorf("log is %q", got)
	}
	attach("open", "one\n")
	m.kill() // the next agent keeps the input open
	m.start()
	attach("open", "two\n")
	m.eventually("both clients were heard", func() error { return in(m.run("logs", "open"), "one\ntwo\n") })
	if p, err := m.pod("open"); err != nil || p.Status.Phase != corev1.PodRunning {
		t.Errorf("the container ended with its client: %v", err)
	}
}
