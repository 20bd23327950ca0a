package node

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// logind is as much of it, and of systemd, as a shutdown needs.
type logind struct {
	bus  *dbus.Conn
	held chan *os.File // our end of each inhibitor lock

	mu    sync.Mutex // guards all below
	delay uint64     // microseconds
}

func (l *logind) Inhibit(_, _, _, mode string) (dbus.UnixFD, *dbus.Error) {
	r, w, err := os.Pipe()
	if err != nil || mode != "delay" {
		return 0, dbus.MakeFailedError(err)
	}
	l.held <- r
	return dbus.UnixFD(w.Fd()), nil // sent when this returns; the test ends before w is collected
}

func (l *logind) Get(_, _ string) (dbus.Variant, *dbus.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return dbus.MakeVariant(l.delay), nil
}

func (l *logind) KillUnit(_, _ string, _ int32) *dbus.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = 30_000_000
	return nil
}

// startLogind runs it on a bus of the test's own.
func startLogind(t *testing.T) (*logind, string) {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("no dbus-daemon")
	}
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	daemon := exec.CommandContext(t.Context(), "dbus-daemon", "--session", "--nofork", "--nopidfile", "--address="+address)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Wait() })
	var bus *dbus.Conn
	var err error
	for range 600 {
		if bus, err = dialBus(t.Context(), address); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &logind{bus: bus, held: make(chan *os.File, 4), delay: 5_000_000}
	for _, export := range []struct {
		path dbus.ObjectPath
		name string
	}{{loginPath, loginManager}, {loginPath, "org.freedesktop.DBus.Properties"}, {systemdPath, systemd + ".Manager"}} {
		if err := bus.Export(l, export.path, export.name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{login, systemd} {
		if _, err := bus.RequestName(name, dbus.NameFlagDoNotQueue); err != nil {
			t.Fatal(err)
		}
	}
	return l, address
}

func TestShutdown(t *testing.T) {
	l, address := startLogind(t)
	ended, changed := make(chan types.UID, 4), make(chan bool, 4)
	s := &Shutdown{Shares: Shares(30*time.Second, 10*time.Second), Address: address, ConfDir: filepath.Join(t.TempDir(), "conf"), Log: discard()}
	s.Pods = func() []*corev1.Pod {
		critical, plain := &corev1.Pod{}, &corev1.Pod{}
		critical.UID, critical.Spec.Priority, plain.UID = "critical", new(int32(2_000_000_000)), "plain"
		return []*corev1.Pod{critical, plain}
	}
	s.End = func(uid types.UID, _ time.Duration) { ended <- uid }
	s.Ended = func(types.UID) bool { return true }
	s.Changed = func() { changed <- s.Active() }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	<-l.held
	conf, err := os.ReadFile(filepath.Join(s.ConfDir, "99-nodeagent.conf"))
	if err != nil || !strings.Contains(string(conf), "InhibitDelayMaxSec=30") {
		t.Errorf("logind is not told to wait: %q, %v", conf, err)
	}
	if err := l.bus.Emit(loginPath, loginManager+".PrepareForShutdown", true); err != nil {
		t.Fatal(err)
	}
	if !<-changed {
		t.Error("the node is not told of the shutdown")
	}
	if first, second := <-ended, <-ended; first != "plain" || second != "critical" {
		t.Errorf("ended %s before %s", first, second)
	}
	if err := l.bus.Emit(loginPath, loginManager+".PrepareForShutdown", false); err != nil {
		t.Fatal(err)
	}
	if <-changed {
		t.Error("the node is not told that the shutdown was called off")
	}
	<-l.held // the next one is waited for
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
