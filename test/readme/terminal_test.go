//go:build integration

package readme

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a command on a pseudo terminal, and all that it has shown.
type terminal struct {
	master *os.File
	cmd    *exec.Cmd
	ended  chan error

	mu    sync.Mutex // guards shown
	shown bytes.Buffer
}

// open starts a shell command in dir on a terminal of its own.
func open(t *testing.T, dir, command string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term := &terminal{master: master, cmd: shell(dir, command), ended: make(chan error, 1)}
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf) // EIO once the last process has closed it
			term.mu.Lock()
			term.shown.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		err := term.cmd.Wait()
		<-read
		term.ended <- err
	}()
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.shown.String()
}

// write types at the terminal.
func (term *terminal) write(t *testing.T, keys string) {
	t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// wait waits for the command to end; its error is that of the command.
func (term *terminal) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-term.ended:
		return err
	case <-time.After(patience):
		t.Fatalf("still running after %s; the terminal shows:\n%s", patience, term.text())
		return nil
	}
}

// shell is a command as a user's shell would run it; nothing of the make that
// runs this test reaches it.
func shell(dir, command string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir = dir
	for _, e := range os.Environ() {
		if !bytes.HasPrefix([]byte(e), []byte("MAKE")) && !bytes.HasPrefix([]byte(e), []byte("MFLAGS")) {
			cmd.Env = append(cmd.Env, e)
		}
	}
	return cmd
}
