package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/podstatus"
	"github.com/nodeagent/nodeagent/pkg/qos"
	"github.com/nodeagent/nodeagent/pkg/server"
)

// web is a running pod of two containers.
func web() corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-node", UID: "u1"},
		Spec:       corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "app"}, {Name: "side"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.88.0.2", QOSClass: corev1.PodQOSBurstable,
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "app", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
				{Name: "side", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			},
		},
	}
}

// agentWith answers clients with the given pods, until the test ends.
func agentWith(t *testing.T, pods ...corev1.Pod) (socket string) {
	t.Helper()
	return agentOf(t, server.Funcs{
		Pods: func(context.Context) (*corev1.PodList, error) { return &corev1.PodList{Items: pods}, nil },
	})
}

// agentOf answers clients until the test ends.
func agentOf(t *testing.T, funcs server.Funcs) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &server.Server{Log: slog.New(slog.DiscardHandler), Funcs: funcs}
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// client runs a command line and returns what it prints.
func runClient(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	c := newRootCommand()
	c.SetOut(&out)
	c.SetErr(&errOut)
	c.SetArgs(args)
	err = c.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

func TestClient(t *testing.T) {
	db := web()
	db.Name, db.UID = "db-node", "u2"
	socket := agentWith(t, web())
	several := agentWith(t, db, web())
	cases := map[string]struct {
		reason string
		args   []string
		want   string
	}{
		"Several":     {"in the order that they are named", []string{"get", "pods", "web", "db-node", "-o", "name", "--socket", several}, "pod/web-node\npod/db-node\n"},
		"SeveralList": {"as a list", []string{"get", "pods", "db", "web", "-o", "jsonpath={.kind} {.items[*].metadata.name}", "--socket", several}, "List db-node web-node"},
		"OtherPods":   {"a shell completes pods that are not named yet", []string{"__complete", "get", "pods", "--socket", several, "web-node", ""}, "db-node\n:4\n"},
		"Names":       {"as kubectl prints them", []string{"get", "pods", "-o", "name"}, "pod/web-node\n"},
		"ShortName":   {"the name in the manifest is enough", []string{"get", "pod", "web", "-o", "jsonpath={.status.podIP}"}, "10.88.0.2"},
		"Table":       {"no age without a start", []string{"get", "pods"}, "NAME       READY   STATUS    RESTARTS   AGE\nweb-node   2/2     Running   0          <unknown>\n"},
		"NoPods":      {"the message is no output", []string{"get", "pods", "-n", "other"}, ""},
		"PodNames":    {"a shell completes pods", []string{"__complete", "describe", "pod", ""}, "web-node\n:4\n"},
		"Containers":  {"a shell completes containers", []string{"__complete", "logs", "web", "-c", ""}, "app\nside\n:4\n"},
		"BehindSlash": {"restart takes POD/CONTAINER", []string{"__complete", "restart", "web/"}, "web/app\nweb/side\n:4\n"},
		"Namespaces":  {"a shell completes namespaces", []string{"__complete", "get", "pods", "-n", ""}, "default\n:4\n"},
		"Formats":     {"a shell completes formats", []string{"__complete", "get", "pods", "-o", ""}, "wide\nname\njson\nyaml\njsonpath=\n:4\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, _, err := runClient(t, append([]string{tc.args[0], "--socket", socket}, tc.args[1:]...)...)
			if tc.args[0] == "__complete" {
				out, _, err = runClient(t, append([]string{"__complete", "--socket", socket}, tc.args[1:]...)...)
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, out); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

// Of several pods one is not there.
func TestGetSomeOfSeveral(t *testing.T) {
	out, _, err := runClient(t, "get", "pods", "nosuch", "web", "-o", "name", "--socket", agentWith(t, web()))
	if out != "pod/web-node\n" {
		t.Errorf("the one that is there is shown, got %q", out)
	}
	if err == nil || !strings.Contains(err.Error(), `"nosuch"`) {
		t.Errorf("the one that is not is named, got %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	socket := agentWith(t, web())
	cases := map[string]struct {
		reason string
		args   []string
		want   []string
	}{
		"NoAgent":      {"the error says how to start one", []string{"get", "pods", "--socket", "/nonexistent"}, []string{"nodeagent run", "--socket"}},
		"NoPod":        {"the error names pod and namespace", []string{"get", "pod", "nosuch", "--socket", socket}, []string{`"nosuch"`, `"default"`}},
		"NameAndLabel": {"both would leave open which counts", []string{"get", "pods", "web", "-l", "a=b", "--socket", socket}, []string{"-l"}},
		"NoContainer":  {"the error says which there are", []string{"restart", "web/nosuch", "--socket", socket}, []string{`"nosuch"`, "app, side"}},
		"NoKind":       {"a wrong word is no success", []string{"get", "bogus"}, []string{`"bogus"`, "pods, problems"}},
		"NoWord":       {"a missing word is no success", []string{"describe"}, []string{"pod"}},
		"Format":       {"before the agent is asked", []string{"get", "pods", "-o", "bogus"}, []string{`"bogus"`, "wide, name, json"}},
		"NodeIP":       {"checked before anything starts", []string{"doctor", "--node-ip", "x"}, []string{"nodeIPs[0]"}},
		"NoCommand":    {"what is missing, not how many", []string{"exec", "web"}, []string{"a pod and a command: nodeagent exec POD"}},
		"NoName":       {"what is missing, not how many", []string{"restart"}, []string{"one of its containers: nodeagent restart POD[/CONTAINER]"}},
		"NoProcess":    {"no path of /proc in the user's face", []string{"inspect", "--pid", "1073741824"}, []string{"no process 1073741824"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, _, err := runClient(t, tc.args...)
			if err == nil {
				t.Fatalf("%s: no error", tc.reason)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s: no %s in %q", tc.reason, w, err)
				}
			}
		})
	}
}

// A user breaks off what has nothing to say yet.
func TestInterrupted(t *testing.T) {
	asked := make(chan struct{}, 1)
	block := func(ctx context.Context) error {
		asked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	socket := agentOf(t, server.Funcs{
		Pods: func(context.Context) (*corev1.PodList, error) {
			return &corev1.PodList{Items: []corev1.Pod{web()}}, nil
		},
		WatchPods: func(ctx context.Context, _ func(server.PodEvent) error) error { return block(ctx) },
		Logs:      func(ctx context.Context, _ server.LogQuery, _, _ io.Writer) error { return block(ctx) },
		Attach:    func(ctx context.Context, _ server.Session) error { return block(ctx) },
		Exec:      func(ctx context.Context, _ server.Session) error { return block(ctx) },
	})
	cases := map[string]struct {
		reason string
		args   []string
		asks   int // of the agent, that take long
		want   int
	}{
		"Logs":    {"who has read enough is content", []string{"logs", "web", "-f"}, 1, 0},
		"Several": {"of several too", []string{"logs", "web", "-f", "--all-containers"}, 2, 0},
		"Watch":   {"who has seen enough is content", []string{"get", "pods", "-w"}, 1, 0},
		"Attach":  {"nothing has ended but the client", []string{"attach", "web"}, 1, exitInterrupted},
		"Exec":    {"the command has not succeeded", []string{"exec", "web", "--", "sleep", "1000"}, 1, exitInterrupted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			c := newRootCommand()
			c.SetArgs(append([]string{tc.args[0], "--socket", socket}, tc.args[1:]...))
			c.SetOut(io.Discard)
			c.SetErr(io.Discard)
			ended := make(chan error, 1)
			go func() { ended <- c.ExecuteContext(ctx) }()
			for range tc.asks {
				select {
				case <-asked:
				case err := <-ended:
					t.Fatalf("%s: it ended by itself: %v", tc.reason, err)
				}
			}
			interrupt()
			if err := <-ended; exitCode(err) != tc.want {
				t.Errorf("%s: want code %d, got %v", tc.reason, tc.want, err)
			}
		})
	}
}

func TestTableKeepsItsWidths(t *testing.T) {
	tab := &table{header: []string{"NAME", "STATUS", "AGE"}}
	var b bytes.Buffer
	for i, row := range [][]string{{"long-name", "ContainerCreating", "1s"}, {"a", "Running", "2s"}} {
		tab.rows = [][]string{row}
		if err := tab.print(&b, i == 0); err != nil {
			t.Fatal(err)
		}
	}
	want := "NAME        STATUS              AGE\nlong-name   ContainerCreating   1s\na           Running             2s\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("rows of a watch line up (-want +got):\n%s", d)
	}
}

func TestLiveTableFits(t *testing.T) {
	l := &liveTable{board: podstatus.NewBoard(), cgroupOf: func(types.UID) string { return "/kubepods/burstable/pod0fa7c7c226bea472c6938be29e9a3b22" }}
	pods := []corev1.Pod{web(), web(), web()}
	for name, size := range map[string][2]int{"Wide": {200, 40}, "Narrow": {80, 40}, "Tiny": {20, 4}} {
		t.Run(name, func(t *testing.T) {
			lines, err := l.frame(pods, size[0], size[1])
			if err != nil {
				t.Fatal(err)
			}
			if len(lines) >= size[1] {
				t.Errorf("%d lines scroll away in a terminal of %d", len(lines), size[1])
			}
			for _, line := range lines {
				if n := len([]rune(line)); n > size[0] {
					t.Errorf("%d characters wrap in a terminal of %d: %s", n, size[0], line)
				}
			}
			if text := strings.Join(lines, "\n"); name != "Tiny" && strings.Count(text, "pod0fa7c7c226bea472c6938be29e9a3b22") != 3 {
				t.Errorf("not every pod's cgroup is shown whole:\n%s", text)
			}
		})
	}
}

func TestCgroupsAround(t *testing.T) {
	v := &cgroupsView{
		Names: map[string]string{"/k/pod1": "default/one"},
		Root: qos.Group{Path: "/k", Children: []qos.Group{
			{Path: "/k/pod1", Children: []qos.Group{{Path: "/k/pod1/c"}}},
			{Path: "/k/pod11"},
		}},
	}
	for path, want := range map[string][]string{
		"/k/pod1/c": {"/k", "/k/pod1", "/k/pod1/c"}, "/k/pod1": {"/k", "/k/pod1", "/k/pod1/c"}, "/k/pod11": {"/k", "/k/pod11"}, "/elsewhere": nil,
	} {
		var got []string
		for _, l := range v.around(path) {
			got = append(got, l.Path)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
	}
}
