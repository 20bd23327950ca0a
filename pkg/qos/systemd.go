package qos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

const (
	unitExists  = "org.freedesktop.systemd1.UnitExists"
	noSuchUnit  = "org.freedesktop.systemd1.NoSuchUnit"
	jobTimeout  = 30 * time.Second
	redialDelay = 100 * time.Millisecond
	redials     = 50
)

// systemdRunning says whether systemd is the running init.
func systemdRunning() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// units talks to systemd over one connection that it keeps.
type units struct {
	mu   sync.Mutex // guards conn; not held during calls
	conn *dbus.Conn
}

// connection returns the kept connection, or a new one: to systemd itself, and
// only if that is not possible through the D-Bus daemon.
func (u *units) connection(ctx context.Context) (*dbus.Conn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn != nil && u.conn.Connected() {
		return u.conn, nil
	}
	conn, err := dbus.NewSystemdConnectionContext(context.WithoutCancel(ctx)) // lives longer than this call
	if err != nil {
		var busErr error
		if conn, busErr = dbus.NewSystemConnectionContext(context.WithoutCancel(ctx)); busErr != nil {
			return nil, fmt.Errorf("systemd answers neither on /run/systemd/private nor on the system bus (start dbus.service, run as root, or set cgroupDriver: cgroupfs): %w", errors.Join(err, busErr))
		}
	}
	u.conn = conn
	return conn, nil
}

// call runs f, again on a new connection when the old one broke: systemd drops
// its connections when it re-executes itself.
func (u *units) call(ctx context.Context, f func(*dbus.Conn) error) error {
	var err error
	for range redials {
		var conn *dbus.Conn
		if conn, err = u.connection(ctx); err == nil {
			if err = f(conn); err == nil || !disconnected(err) {
				return err
			}
			u.drop(conn)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(redialDelay):
		}
	}
	return err
}

func (u *units) drop(conn *dbus.Conn) {
	u.mu.Lock()
	if u.conn == conn {
		u.conn = nil
	}
	u.mu.Unlock()
	conn.Close()
}

// disconnected says whether err is about the connection and not about the call.
func disconnected(err error) bool {
	if remote, ok := errors.AsType[godbus.Error](err); ok {
		return remote.Name == "org.freedesktop.DBus.Error.NoReply" || remote.Name == "org.freedesktop.DBus.Error.Disconnected"
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errJob)
}

var errJob = errors.New("systemd job failed")

// start makes a slice with all its settings in one step. It reports whether the
// slice was there already, which then keeps what it has.
func (u *units) start(ctx context.Context, slice string, version int, settings []Setting) (existed bool, err error) {
	all := append(sliceProperties(slice, version), properties(settings)...)
	err = u.call(ctx, func(conn *dbus.Conn) error {
		done := make(chan string, 1)
		_, err := conn.StartTransientUnitContext(ctx, slice, "replace", all, done)
		if err != nil {
			return err
		}
		return await(ctx, done)
	})
	var remote godbus.Error
	if errors.As(err, &remote) && remote.Name == unitExists {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("start unit %s: %w", slice, err)
	}
	return false, nil
}

// sliceProperties are what every slice has besides its settings. A slice is
// never delegated: systemd does not allow it.
func sliceProperties(slice string, version int) []dbus.Property {
	yes := godbus.MakeVariant(true)
	io := "IOAccounting"
	if version == 1 {
		io = "BlockIOAccounting"
	}
	return []dbus.Property{
		dbus.PropDescription("nodeagent: " + slice),
		dbus.PropWants(parentSlice(slice)),
		{Name: "MemoryAccounting", Value: yes}, {Name: "CPUAccounting", Value: yes}, {Name: "TasksAccounting", Value: yes}, {Name: io, Value: yes},
		{Name: "DefaultDependencies", Value: godbus.MakeVariant(false)},
	}
}

// parentSlice is the slice that a slice's name puts it into.
func parentSlice(slice string) string {
	base := strings.TrimSuffix(path.Base(slice), ".slice")
	i := strings.LastIndex(base, "-")
	if i < 0 {
		return "-.slice"
	}
	return base[:i] + ".slice"
}

// set changes settings of a slice until the next boot.
func (u *units) set(ctx context.Context, slice string, settings []Setting) error {
	props := properties(settings)
	if len(props) == 0 {
		return nil
	}
	err := u.call(ctx, func(conn *dbus.Conn) error {
		return conn.SetUnitPropertiesContext(ctx, slice, true, props...)
	})
	if err != nil {
		return fmt.Errorf("set properties of unit %s: %w", slice, err)
	}
	return nil
}

// stop ends a slice and forgets it; one that is not there is success.
func (u *units) stop(ctx context.Context, slice string) error {
	err := u.call(ctx, func(conn *dbus.Conn) error {
		done := make(chan string, 1)
		if _, err := conn.StopUnitContext(ctx, slice, "replace", done); err != nil {
			return err
		}
		return await(ctx, done)
	})
	var remote godbus.Error
	if errors.As(err, &remote) && remote.Name == noSuchUnit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop unit %s: %w", slice, err)
	}
	return nil
}

// await waits for the result of a job.
func await(ctx context.Context, done <-chan string) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%w: %s", errJob, result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the connection.
func (u *units) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn != nil {
		u.conn.Close()
		u.conn = nil
	}
}
