package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// settled waits until no goroutine is inside a handler of this package any more.
func settled(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		stacks := make([]byte, 8<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !strings.Contains(string(stacks), "(*service).") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("handlers go on without their clients:\n%s", stacks)
		}
		runtime.Gosched()
	}
}

// TestAbort lets clients vanish at every point of an upgrade and after it: nothing
// of them may stay.
func TestAbort(t *testing.T) {
	wait := func(ctx context.Context, _ Session) error { <-ctx.Done(); return ctx.Err() }
	c := newCluster(t, Funcs{
		Exec: wait, Attach: wait,
		PortForward: func(ctx context.Context, _ Target, _ int32, _ io.ReadWriteCloser) error { <-ctx.Done(); return nil },
	})
	c.api.Auth.AccessReview = nil
	c.reviewer.tokens["t"] = "root"
	c.run(t)
	for _, path := range []string{"/exec/ns/pod/c?command=sh&output=1&input=1", "/attach/ns/pod/c?output=1&tty=1", "/portForward/ns/pod?port=80"} {
		request := "GET " + path + " HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer t\r\nConnection: Upgrade\r\n" +
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
		for cut := 1; cut <= len(request); cut += 17 {
			abort(t, c.address, request[:cut], false)
		}
		abort(t, c.address, request, true)
	}
	settled(t)
}

// abort sends a request, or its beginning, and hangs up, if answered after the
// answer has begun.
func abort(t *testing.T, address, request string, answered bool) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if answered {
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClientThatNeverReads: its command waits for it, and nobody else does.
func TestClientThatNeverReads(t *testing.T) {
	c := newCluster(t, Funcs{Exec: func(ctx context.Context, s Session) error {
		for ctx.Err() == nil {
			if _, err := s.Stdout.Write(make([]byte, 32<<10)); err != nil {
				return err
			}
		}
		return ctx.Err()
	}})
	c.api.Auth.AccessReview = nil
	c.reviewer.tokens["t"] = "root"
	c.run(t)
	conn, err := tls.Dial("tcp", c.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "GET /exec/ns/pod/c?command=yes&output=1 HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer t\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil { // it is upgraded, and from now on reads nothing
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+c.address+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer t")
	resp, err := (&http.Client{Transport: c.transport(t, nil)}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("somebody else: %s", resp.Status)
	}
	_ = conn.Close() // what it has not read is lost
	settled(t)
}

// TestAnswersHoldForAWhile is about the questions to the API server.
func TestAnswersHoldForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &reviewer{tokens: map[string]string{"t": "user"}, grants: map[string][]string{"user": {"get pods"}}}
		auth := &Auth{NodeName: "node-1", TokenReview: f.token, AccessReview: f.access, TokenTTL: 2 * time.Minute, AllowTTL: 5 * time.Minute, DenyTTL: 30 * time.Second}
		n, z := newAuthn(auth), newAuthz(auth)
		asked := func(reason string, want int64, ask func() error, ok bool) {
			t.Helper()
			before := f.asked.Load()
			if err := ask(); (err == nil) != ok {
				t.Errorf("%s: got %v", reason, err)
			}
			if got := f.asked.Load() - before; got != want {
				t.Errorf("%s: asked %d times, want %d", reason, got, want)
			}
		}
		token := func(s string) func() error {
			return func() error { _, err := n.token(t.Context(), s); return err }
		}
		user := &caller{UserInfo: authenticationv1.UserInfo{Username: "user", Groups: []string{"system:authenticated"}}}
		allow := func(s string) func() error {
			return func() error { return z.allow(t.Context(), user, "get", []string{s}) }
		}
		asked("a token", 1, token("t"), true)
		asked("again", 0, token("t"), true)
		asked("nobody's", 1, token("x"), false)
		asked("nobody's again", 0, token("x"), false)
		asked("allowed", 1, allow("pods"), true)
		asked("denied", 1, allow("stats"), false)
		asked("denied again", 0, allow("stats"), false)
		f.down.Store(true)
		time.Sleep(time.Minute)
		asked("away, and still known", 0, token("t"), true)
		asked("allowed for longer", 0, allow("pods"), true)
		asked("denied no more, and not known", 1, allow("stats"), false)
		time.Sleep(2 * time.Minute)
		asked("away, and no longer known", 1, token("t"), false)
		time.Sleep(3 * time.Minute)
		asked("nor allowed", 1, allow("pods"), false)
		f.down.Store(false)
		asked("back", 1, token("t"), true)
		for i := range 2 * maxRemembered {
			_ = token(fmt.Sprint(i))()
		}
		if len(n.tokens.known) > maxRemembered || n.tokens.order.Len() > maxRemembered {
			t.Errorf("guesses take memory: %d", len(n.tokens.known))
		}
	})
}

// TestStrangersMakeRoom: who only sits there is put out for those who come after.
func TestStrangersMakeRoom(t *testing.T) {
	c := newCluster(t, everything())
	c.api.Auth.AccessReview = nil
	c.run(t)
	var first net.Conn
	for i := range 2 * maxStrangersOfHost {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i == 0 {
			first = conn
		}
	}
	resp, err := (&http.Client{Transport: c.transport(t, c.ca.sign(t, "boss", nil, nil))}).Get("https://" + c.address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("who is known: %s", resp.Status)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the first stranger is still there")
	}
}

func TestPlaces(t *testing.T) {
	p := &places{what: "sessions", total: 4, perCaller: 2, perObject: 3}
	take := func(caller, object string) func() { r, _ := p.take(caller, object); return r }
	a := take("a", "x")
	if take("a", "y") == nil || take("a", "z") != nil {
		t.Error("a caller has two places")
	}
	if take("", "x") == nil || take("b", "x") == nil || take("b", "y") != nil {
		t.Error("and all have four")
	}
	a()
	a() // once is enough
	if p.taken != 3 || take("b", "x") == nil || take("c", "y") != nil {
		t.Errorf("a place that is free again is one: %d", p.taken)
	}
}
