package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy" //nolint:staticcheck // client-go's executor takes no other
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/utils/exec"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestAnswers(t *testing.T) {
	funcs := Funcs{
		Pods: func(context.Context) (*corev1.PodList, error) {
			return &corev1.PodList{Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}}, nil
		},
		Restart: func(_ context.Context, namespace, pod, _ string) error {
			if pod != "a" {
				return NotFound(fmt.Sprintf("pod %s/%s not found", namespace, pod))
			}
			return nil
		},
		Logs: func(_ context.Context, _ LogQuery, out, _ io.Writer) error {
			_, err := io.WriteString(out, "0123456789")
			return err
		},
		Images: func(context.Context) (any, error) { return nil, errors.New("containerd is away") },
	}
	cases := map[string]struct {
		reason string
		method string
		path   string
		code   int
		body   string
	}{
		"Health":         {"a probe needs no more", "GET", "/healthz", 200, "ok"},
		"Restart":        {"done, nothing to say", "POST", "/nodeagent/v1/restart/default/a?container=c", 204, ""},
		"RestartUnknown": {"the error's own status is used", "POST", "/nodeagent/v1/restart/default/b", 404, "pod default/b not found\n"},
		"NotServed":      {"a nil func is 501", "GET", "/nodeagent/v1/cgroups", 501, "this agent does not serve that request\n"},
		"Failure":        {"any other error is 500", "GET", "/nodeagent/v1/images", 500, "containerd is away\n"},
		"Limit":          {"limitBytes cuts the log", "GET", "/containerLogs/default/a/c?limitBytes=4", 200, "0123"},
		"BadTail":        {"a bad number is the client's fault", "GET", "/containerLogs/default/a/c?tailLines=-3", 400, "tailLines: \"-3\" is not a number of at least 0\n"},
		"NoStreams":      {"exec without a stream is refused", "POST", "/exec/default/a/c?command=ls", 501, "this agent does not serve that request\n"},
		"WrongMethod":    {"routes are bound to methods", "DELETE", "/pods", 405, "Method Not Allowed\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h := (&Server{Funcs: funcs, Log: quiet()}).Handler()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, nil))
			if w.Code != tc.code || w.Body.String() != tc.body {
				t.Errorf("%s: got %d %q, want %d %q", tc.reason, w.Code, w.Body, tc.code, tc.body)
			}
		})
	}
}

func TestParseLogQuery(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	cases := map[string]struct {
		reason string
		query  string
		want   LogQuery
	}{
		"Defaults": {"everything, once", "", LogQuery{Tail: -1}},
		"All": {
			"the kubelet's parameter names",
			"follow=true&previous=1&timestamps=true&tailLines=7&limitBytes=9&sinceTime=2026-01-02T03:04:05.000000006Z",
			LogQuery{Follow: true, Previous: true, Timestamps: true, Tail: 7, LimitBytes: 9, Since: at},
		},
		"TailAll": {"kubectl sends the word all", "tailLines=all", LogQuery{Tail: -1}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v, err := url.ParseQuery(tc.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseLogQuery(v)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

// serveSocket runs a server on a unix socket for the length of the test.
func serveSocket(t *testing.T, funcs Funcs) *http.Transport {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&Server{Funcs: funcs, Log: quiet()}).Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server ended with %v", err)
		}
	})
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}

func TestExecOverSocket(t *testing.T) {
	transport := serveSocket(t, Funcs{Exec: func(_ context.Context, s Session) error {
		in, err := io.ReadAll(s.Stdin)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(s.Stdout, "%s/%s/%s %v <%s>", s.Namespace, s.Pod, s.Container, s.Command, in); err != nil {
			return err
		}
		return utilexec.CodeExitError{Err: errors.New("exit"), Code: 7}
	}})
	rt, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: transport})
	if err != nil {
		t.Fatal(err)
	}
	target := &url.URL{
		Scheme: "http", Host: "agent", Path: "/exec/ns/pod/c",
		RawQuery: url.Values{"command": {"ls", "-l"}, "input": {"1"}, "output": {"1"}}.Encode(),
	}
	executor, err := remotecommand.NewSPDYExecutorForTransports(rt, rt, "POST", target)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: bytes.NewBufferString("hello"), Stdout: &out})
	var exit utilexec.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 7 {
		t.Errorf("exit: got %v, want the command's code 7", err)
	}
	if want := "ns/pod/c [ls -l] <hello>"; out.String() != want {
		t.Errorf("output: got %q, want %q", out.String(), want)
	}
}

// A client that is killed takes its command along, also one that sends nothing.
func TestSessionEndsWithItsClient(t *testing.T) {
	for _, verb := range []string{"exec", "attach"} {
		t.Run(verb, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan struct{})
			session := func(ctx context.Context, _ Session) error {
				close(began)
				<-ctx.Done()
				close(ended)
				return ctx.Err()
			}
			transport := serveSocket(t, Funcs{Exec: session, Attach: session})
			rt, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: transport})
			if err != nil {
				t.Fatal(err)
			}
			target := &url.URL{Scheme: "http", Host: "agent", Path: "/" + verb + "/ns/pod/c", RawQuery: "command=ls&output=1"}
			executor, err := remotecommand.NewSPDYExecutorForTransports(rt, rt, "POST", target)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-began; cancel() }()
			if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard}); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			<-ended
		})
	}
}

func TestTooManyReaders(t *testing.T) {
	began, end := make(chan struct{}), make(chan struct{})
	transport := serveSocket(t, Funcs{Logs: func(ctx context.Context, _ LogQuery, _, _ io.Writer) error {
		began <- struct{}{}
		select {
		case <-end:
		case <-ctx.Done():
		}
		return nil
	}})
	client := &http.Client{Transport: transport}
	get := func() (*http.Response, error) { return client.Get("http://agent/containerLogs/ns/pod/c?follow=true") }
	codes := make(chan int, maxReaders)
	for range maxReaders {
		go func() {
			resp, err := get()
			if err != nil {
				codes <- 0
				return
			}
			<-end
			_ = resp.Body.Close() // nothing is in it
			codes <- resp.StatusCode
		}()
		<-began
	}
	resp, err := get()
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // the code says all
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %s", resp.Status)
	}
	close(end)
	for range maxReaders {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one that was served got %d", code)
		}
	}
	go func() { <-began }()
	if resp, err = get(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("after some have ended: %v, %v", resp, err)
	} else {
		_ = resp.Body.Close() // nothing is in it
	}
}

func TestLogFailureIsNoLogLine(t *testing.T) {
	transport := serveSocket(t, Funcs{Logs: func(_ context.Context, _ LogQuery, out, _ io.Writer) error {
		_, err := io.WriteString(out, "first\n")
		return errors.Join(err, errors.New("the disk is broken"))
	}})
	resp, err := (&http.Client{Transport: transport}).Get("http://agent/containerLogs/ns/pod/c")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if string(body) != "first\n" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q and %v, want the line and a broken connection", body, err)
	}
}

func TestWatchPods(t *testing.T) {
	transport := serveSocket(t, Funcs{WatchPods: func(ctx context.Context, send func(PodEvent) error) error {
		if err := send(PodEvent{Type: "ADDED", Object: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}})
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://agent/nodeagent/v1/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var e PodEvent
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "ADDED" || e.Object.Name != "a" {
		t.Errorf("the first event must arrive while the watch is open: got %+v", e)
	}
}
