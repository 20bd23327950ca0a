package cri

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// deletes answers each delete of a task with the next error.
type deletes struct {
	tasksapi.TasksClient
	answers []error
}

func (d *deletes) Delete(context.Context, *tasksapi.DeleteTaskRequest, ...grpc.CallOption) (*tasksapi.DeleteResponse, error) {
	err := d.answers[0]
	d.answers = d.answers[1:]
	return nil, err
}

func TestDeleteTask(t *testing.T) {
	closed, gone, ill := status.Error(codes.Unknown, "ttrpc: closed"), status.Error(codes.NotFound, "no such task"), status.Error(codes.Unknown, "disk full")
	cases := map[string]struct {
		reason  string
		answers []error
		fails   bool
	}{
		"Deleted":     {reason: "asked once", answers: []error{nil}},
		"Gone":        {reason: "what is not there is deleted", answers: []error{gone}},
		"ShimClosed":  {reason: "the shim had ended with its task", answers: []error{closed, gone}},
		"StillThere":  {reason: "or it had not yet", answers: []error{closed, closed, nil}},
		"NeverClear":  {reason: "a shim that is gone is no proof that its task is", answers: []error{closed, closed, closed, closed}, fails: true},
		"OtherError":  {reason: "any other error is one at once", answers: []error{ill}, fails: true},
		"OtherSecond": {reason: "and so is one after it", answers: []error{closed, ill}, fails: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tasks := &deletes{answers: tc.answers}
				client, err := containerd.New("", containerd.WithServices(containerd.WithTaskClient(tasks)))
				if err != nil {
					t.Fatal(err)
				}
				c := &containerState{task: true}
				err = (&Runtime{client: client}).deleteTask(t.Context(), &podState{}, c)
				if (err != nil) != tc.fails || c.task != tc.fails || len(tasks.answers) > 0 {
					t.Errorf("%s: got %v, task left %t, %d answers left", tc.reason, err, c.task, len(tasks.answers))
				}
			})
		})
	}
}

func TestShimID(t *testing.T) {
	valid := []string{"/opt/bin/containerd-shim-runc-v2", "-namespace", "nodeagent", "-id", "abc", "-address", "/run/c.sock"}
	cases := map[string]struct {
		reason string
		args   []string
		want   string
	}{
		"OwnShim":        {reason: "a shim of our namespace", args: valid, want: "abc"},
		"OtherNamespace": {reason: "a kubelet's shims are not ours", args: []string{valid[0], "-namespace", "k8s.io", "-id", "abc"}},
		"OtherProgram":   {reason: "only the program itself counts, not who names it", args: append([]string{"grep"}, valid...)},
		"NoID":           {reason: "a flag without its value names nothing", args: valid[:4]},
		"Kernel":         {reason: "kernel threads have no command line"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var cmdline string
			for _, a := range c.args {
				cmdline += a + "\x00"
			}
			if got := shimID(cmdline, "nodeagent"); got != c.want {
				t.Errorf("%s: shimID(%q) = %q, want %q", c.reason, strings.ReplaceAll(cmdline, "\x00", " "), got, c.want)
			}
		})
	}
}
