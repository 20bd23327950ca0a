package qos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sync/singleflight"
)

const (
	unitExists  = "org.freedesktop.systemd1.UnitExists"
	noSuchUnit  = "org.freedesktop.systemd1.NoSuchUnit"
	jobTimeout  = 30 * time.Second
	redialDelay = 100 * time.Millisecond
	redials     = 50
)

var (
	errJob    = errors.New("systemd job failed")
	errBroken = errors.New("connection to systemd broke")
)

// systemdRunning says whether systemd is the running init.
func systemdRunning(runRoot string) bool {
	info, err := os.Lstat(filepath.Join(runRoot, "systemd/system"))
	return err == nil && info.IsDir()
}

// units talks to systemd over one connection that it keeps.
type units struct {
	runRoot string
	dialing singleflight.Group // so that many callers make one connection

	mu   sync.Mutex // guards link; never held across I/O
	link *link
}

// connection returns the kept connection, or a new one.
func (u *units) connection(ctx context.Context) (*link, error) {
	if l := u.connected(); l != nil {
		return l, nil
	}
	dialed := u.dialing.DoChan("", func() (any, error) {
		if l := u.connected(); l != nil { // of the caller before
			return l, nil
		}
		l, err := dial(context.WithoutCancel(ctx), u.runRoot) // lives longer than this call
		if err != nil {
			return nil, err
		}
		u.replace(l)
		return l, nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-dialed:
		l, _ := r.Val.(*link)
		return l, r.Err
	}
}

// connected is the kept connection while it is one.
func (u *units) connected() *link {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.link == nil || !u.link.Connected() {
		return nil
	}
	return u.link
}

// replace keeps another connection. Of the one before half may be left.
func (u *units) replace(l *link) {
	u.mu.Lock()
	old := u.link
	u.link = l
	u.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// call runs f, again on a new connection when the old one broke: systemd drops
// its connections when it re-executes itself.
func (u *units) call(ctx context.Context, f func(*link) error) error {
	var err error
	for range redials {
		var l *link
		if l, err = u.connection(ctx); err == nil {
			if err = f(l); err == nil || !disconnected(err) {
				return err
			}
			u.drop(l)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(redialDelay):
		}
	}
	return err
}

func (u *units) drop(l *link) {
	u.mu.Lock()
	if u.link == l {
		u.link = nil
	}
	u.mu.Unlock()
	l.Close()
}

// disconnected says whether err is about the connection and not about the call.
func disconnected(err error) bool {
	if remote, ok := errors.AsType[godbus.Error](err); ok {
		return remote.Name == "org.freedesktop.DBus.Error.NoReply" || remote.Name == "org.freedesktop.DBus.Error.Disconnected"
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errJob)
}

// start makes a slice with all its settings in one step. It reports whether the
// slice was there already, which then keeps what it has.
func (u *units) start(ctx context.Context, slice string, version int, settings []Setting) (existed bool, err error) {
	all := append(sliceProperties(slice, version), properties(settings)...)
	err = u.call(ctx, func(l *link) error {
		return l.job(ctx, func(done chan<- string) error {
			_, err := l.StartTransientUnitContext(ctx, slice, "replace", all, done)
			return err
		})
	})
	if !isRemote(err, unitExists) {
		return false, wrapUnit("start", slice, err)
	}
	// Known is not active: systemd remembers a slice that was stopped for a while.
	err = u.call(ctx, func(l *link) error {
		return l.job(ctx, func(done chan<- string) error {
			_, err := l.StartUnitContext(ctx, slice, "replace", done)
			return err
		})
	})
	return true, wrapUnit("start", slice, err)
}

func wrapUnit(verb, slice string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s unit %s: %w", verb, slice, err)
}

func isRemote(err error, name string) bool {
	remote, ok := errors.AsType[godbus.Error](err)
	return ok && remote.Name == name
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
	err := u.call(ctx, func(l *link) error {
		return l.SetUnitPropertiesContext(ctx, slice, true, props...)
	})
	return wrapUnit("set properties of", slice, err)
}

// stop ends a slice and forgets it; one that is not there is success.
func (u *units) stop(ctx context.Context, slice string) error {
	err := u.call(ctx, func(l *link) error {
		return l.job(ctx, func(done chan<- string) error {
			_, err := l.StopUnitContext(ctx, slice, "replace", done)
			return err
		})
	})
	if isRemote(err, noSuchUnit) {
		return nil
	}
	return wrapUnit("stop", slice, err)
}

// close ends the connection.
func (u *units) close() { u.replace(nil) }
