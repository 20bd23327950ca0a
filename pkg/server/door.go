package server

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

const (
	maxGuests          = 1024 // connections of callers that were recognised
	maxStrangers       = 256  // and of those that were not
	maxStrangersOfHost = 64
)

// door counts the connections of a listener. Whoever connects is a stranger until
// a request of theirs was authenticated. When there are too many strangers, the
// one that has waited longest has to leave: a caller that means it is recognised
// within milliseconds, however many others just sit there.
type door struct {
	net.Listener

	mu        sync.Mutex // guards all below and the fields of the visitors
	strangers list.List  // of *visitor, the oldest first
	hosts     map[netip.Addr]int
	guests    int
}

func newDoor(l net.Listener) *door {
	return &door{Listener: l, hosts: map[netip.Addr]int{}}
}

// visitor is a connection that came through the door.
type visitor struct {
	net.Conn
	door   *door
	host   netip.Addr
	place  *list.Element // among the strangers; nil: it is none
	closed bool
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	v := &visitor{Conn: c, door: d, host: hostOf(c)}
	if out := d.enter(v); out != nil {
		_ = out.Close() // it has not said who it is, and is not told more
	}
	return v, nil
}

// hostOf is where a connection comes from; not known is a host, too.
func hostOf(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// enter lets a stranger in and returns the one that has to leave for it, or nil.
func (d *door) enter(v *visitor) *visitor {
	d.mu.Lock()
	defer d.mu.Unlock()
	v.place = d.strangers.PushBack(v)
	d.hosts[v.host]++
	sameHost := d.hosts[v.host] > maxStrangersOfHost
	if !sameHost && d.strangers.Len() <= maxStrangers {
		return nil
	}
	for e := d.strangers.Front(); e != nil; e = e.Next() {
		if oldest, _ := e.Value.(*visitor); !sameHost || oldest.host == v.host {
			return oldest
		}
	}
	return nil
}

// recognise makes a stranger a guest, while there is room.
func (v *visitor) recognise() error {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	switch {
	case v.place == nil || v.closed:
		return nil
	case v.door.guests >= maxGuests:
		return &Error{Code: http.StatusServiceUnavailable, Message: "too many connections; close some"}
	}
	v.leaveStrangers()
	v.door.guests++
	return nil
}

// leaveStrangers needs the door's mu.
func (v *visitor) leaveStrangers() {
	v.door.strangers.Remove(v.place)
	v.place = nil
	less(v.door.hosts, v.host)
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.door.mu.Lock()
	switch {
	case v.closed:
	case v.place != nil:
		v.leaveStrangers()
	default:
		v.door.guests--
	}
	v.closed = true
	v.door.mu.Unlock()
	return v.Conn.Close()
}
