package qos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

const (
	reloading = "org.freedesktop.systemd1.Manager.Reloading"
	// signalBacklog is how many signals may wait for their reader.
	signalBacklog = 256
)

// link is a connection to systemd that knows when it broke.
type link struct {
	*dbus.Conn
	// signals is the half of the connection that hears what systemd says unasked.
	signals *godbus.Conn
}

// dial connects to systemd itself, and only if that is not possible through the
// D-Bus daemon.
func dial(ctx context.Context, runRoot string) (*link, error) {
	l, err := dialAt(ctx, "unix:path="+filepath.Join(runRoot, "systemd/private"), false)
	if err == nil {
		return l, nil
	}
	bus := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if bus == "" {
		bus = "unix:path=" + filepath.Join(runRoot, "dbus/system_bus_socket")
	}
	l, busErr := dialAt(ctx, bus, true)
	if busErr != nil {
		return nil, fmt.Errorf("systemd answers neither on %s nor on the system bus (start dbus.service, run as root, or set cgroupDriver: cgroupfs): %w",
			filepath.Join(runRoot, "systemd/private"), errors.Join(err, busErr))
	}
	return l, nil
}

// dialAt connects to one address. A D-Bus daemon wants to be greeted, and asked
// for signals; systemd sends them all to those who speak to it directly.
func dialAt(ctx context.Context, address string, daemon bool) (*link, error) {
	var l link
	var err error
	l.Conn, err = dbus.NewConnection(func() (*godbus.Conn, error) {
		conn, err := godbus.Dial(address, godbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))})
		if err == nil && daemon {
			err = conn.Hello()
		}
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		l.signals = conn // the second of two, which is the one for signals
		return conn, nil
	})
	if err != nil || !daemon {
		return &l, err
	}
	err = l.signals.AddMatchSignal(godbus.WithMatchInterface("org.freedesktop.systemd1.Manager"), godbus.WithMatchMember("Reloading"))
	if err = errors.Join(err, l.Subscribe()); err != nil {
		l.Close()
		return nil, fmt.Errorf("subscribe to systemd's signals: %w", err)
	}
	return &l, nil
}

// job asks for a job and waits for its result. The answer of a systemd that
// re-executes itself meanwhile never comes.
func (l *link) job(ctx context.Context, ask func(done chan<- string) error) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	done := make(chan string, 1)
	if err := ask(done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%w: %s", errJob, result)
		}
		return nil
	case <-l.signals.Context().Done():
		return errBroken
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch calls again after everything that can undo what systemd has no property
// for: that it reloaded its units, or executed itself anew.
func (u *units) watch(ctx context.Context, again func()) {
	for first := true; ctx.Err() == nil; first = false {
		var l *link
		err := u.call(ctx, func(conn *link) error { l = conn; return nil })
		if err != nil { // whoever needs systemd says so
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		l.follow(ctx, first, again)
	}
}

// follow calls again whenever systemd has reloaded, until the connection breaks,
// and at once unless it is the first.
func (l *link) follow(ctx context.Context, first bool, again func()) {
	signals := make(chan *godbus.Signal, signalBacklog)
	l.signals.Signal(signals)
	defer l.signals.RemoveSignal(signals)
	if !first {
		again()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.signals.Context().Done():
			return
		case s := <-signals:
			if s == nil { // the connection closed the channel
				return
			}
			var active bool
			if s.Name == reloading && godbus.Store(s.Body, &active) == nil && !active {
				again()
			}
		}
	}
}
