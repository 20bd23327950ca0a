package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	login        = "org.freedesktop.login1"
	loginPath    = dbus.ObjectPath("/org/freedesktop/login1")
	loginManager = login + ".Manager"
	systemd      = "org.freedesktop.systemd1"
	systemdPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	// logindAgain is how long to wait for a logind that is not there.
	logindAgain = 10 * time.Second
	// logindReads is how long logind may take to read its configuration.
	logindReads = 5 * time.Second
)

// Shutdown holds a shutdown of the machine back until the pods have ended.
//
//	delay inhibitor ──► PrepareForShutdown(true) ──► waves ──► inhibitor released
//	      ▲                                            │
//	      └─────────── PrepareForShutdown(false): the shutdown was called off
type Shutdown struct {
	Shares []Share
	// Address is that of the system bus.
	Address string
	// ConfDir holds logind's drop-in files. logind does not wait for longer than its
	// configuration says, which is 5 s unless one of them says more.
	ConfDir string
	// Pods are those to end; End ends one, and Ended says whether it has.
	Pods  func() []*corev1.Pod
	End   func(uid types.UID, grace time.Duration)
	Ended func(uid types.UID) bool
	// Changed is called when Active has.
	Changed func()
	Log     *slog.Logger

	active atomic.Bool
}

// Active says whether the machine is shutting down.
func (s *Shutdown) Active() bool { return s.active.Load() }

// Run watches for a shutdown until ctx ends.
func (s *Shutdown) Run(ctx context.Context) error {
	said := ""
	for {
		err := s.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil { // the shutdown was called off
			said = ""
			continue
		}
		if err.Error() != said {
			s.Log.Warn("a shutdown of this machine would not wait for its pods", "err", err)
		}
		said = err.Error()
		pause(ctx, logindAgain)
	}
}

// watch holds the inhibitor until logind is gone, or a shutdown has been called off.
func (s *Shutdown) watch(ctx context.Context) error {
	bus, err := dialBus(ctx, s.Address)
	if err != nil {
		return err
	}
	defer bus.Close()
	if err := s.extendDelay(ctx, bus); err != nil {
		return err
	}
	signals := make(chan *dbus.Signal, 8)
	bus.Signal(signals)
	err = bus.AddMatchSignalContext(ctx, dbus.WithMatchInterface(loginManager), dbus.WithMatchMember("PrepareForShutdown"), dbus.WithMatchObjectPath(loginPath))
	if err != nil {
		return fmt.Errorf("watch logind: %w", err)
	}
	release, err := inhibit(ctx, bus)
	if err != nil {
		return err
	}
	defer release()
	var ending sync.WaitGroup
	defer ending.Wait()
	life, end := context.WithCancel(ctx)
	defer end()
	for begun := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case sig, open := <-signals:
			if !open {
				return errors.New("the connection to the system bus has ended")
			}
			if sig.Name != loginManager+".PrepareForShutdown" || len(sig.Body) != 1 {
				continue
			}
			begins, _ := sig.Body[0].(bool)
			if begins && !begun {
				begun = true
				s.set(true)
				ending.Go(func() {
					s.endAll(life)
					release()
				})
			}
			if !begins && begun {
				s.set(false)
				s.Log.Info("the shutdown was called off")
				return nil
			}
		}
	}
}

func (s *Shutdown) set(active bool) {
	s.active.Store(active)
	s.Changed()
}

func dialBus(ctx context.Context, address string) (*dbus.Conn, error) {
	bus, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("system bus: %w", err)
	}
	if err := errors.Join(bus.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))})); err != nil {
		return nil, errors.Join(fmt.Errorf("system bus: %w", err), bus.Close())
	}
	if err := bus.Hello(); err != nil {
		return nil, errors.Join(fmt.Errorf("system bus: %w", err), bus.Close())
	}
	return bus, nil
}

// inhibit has logind wait. release may be called more than once.
func inhibit(ctx context.Context, bus *dbus.Conn) (release func(), err error) {
	var fd dbus.UnixFD
	err = bus.Object(login, loginPath).CallWithContext(ctx, loginManager+".Inhibit", 0,
		"shutdown", "nodeagent", "Pods are ended in the order of their priority", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("delay shutdowns: %w", err)
	}
	var once sync.Once
	return func() { once.Do(func() { _ = unix.Close(int(fd)) }) }, nil
}

// extendDelay has logind wait for as long as the pods may take.
func (s *Shutdown) extendDelay(ctx context.Context, bus *dbus.Conn) error {
	want := Sum(s.Shares)
	have, err := maxDelay(bus)
	if err != nil || have >= want {
		return err
	}
	if err := os.MkdirAll(s.ConfDir, 0o755); err != nil {
		return fmt.Errorf("configure logind: %w", err)
	}
	text := fmt.Sprintf("# Written by nodeagent: shutdownGracePeriod.\n[Login]\nInhibitDelayMaxSec=%.0f\n", want.Seconds())
	if err := writeFile(filepath.Join(s.ConfDir, "99-nodeagent.conf"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("configure logind: %w", err)
	}
	err = bus.Object(systemd, systemdPath).CallWithContext(ctx, systemd+".Manager.KillUnit", 0, "systemd-logind.service", "all", int32(unix.SIGHUP)).Err
	if err != nil {
		return fmt.Errorf("have logind read its configuration: %w", err)
	}
	for deadline := time.Now().Add(logindReads); have < want && time.Now().Before(deadline) && ctx.Err() == nil; {
		pause(ctx, lookEvery)
		if have, err = maxDelay(bus); err != nil {
			return err
		}
	}
	if have < want {
		s.Log.Warn("logind waits for less time than shutdownGracePeriod: is InhibitDelayMaxSec set in a later file?", "wants", want, "has", have)
	}
	return nil
}

func maxDelay(bus *dbus.Conn) (time.Duration, error) {
	v, err := bus.Object(login, loginPath).GetProperty(loginManager + ".InhibitDelayMaxUSec")
	if err != nil {
		return 0, fmt.Errorf("ask logind how long it waits: %w", err)
	}
	usec, ok := v.Value().(uint64)
	if !ok {
		return 0, fmt.Errorf("ask logind how long it waits: unexpected answer %s", v)
	}
	return time.Duration(usec) * time.Microsecond, nil
}
