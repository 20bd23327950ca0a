package cri

import (
	"log/slog"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"k8s.io/apimachinery/pkg/types"
)

func TestNeverStarted(t *testing.T) {
	noted := time.Now()
	cases := map[string]struct {
		reason string
		task   *task.Process
		noted  time.Time
		want   bool
	}{
		"Created":         {reason: "nobody has asked it to start", task: &task.Process{Status: task.Status_CREATED}, want: true},
		"StartBrokenOff":  {reason: "containerd kills what it was starting when its client goes", task: &task.Process{Status: task.Status_STOPPED, ExitStatus: 137}, want: true},
		"KilledLater":     {reason: "an end that a started container met counts", task: &task.Process{Status: task.Status_STOPPED, ExitStatus: 137}, noted: noted},
		"EndedBeforeNote": {reason: "a program that has done its work must not do it twice", task: &task.Process{Status: task.Status_STOPPED}},
		"Runs":            {reason: "the note is missing, the process is not", task: &task.Process{Status: task.Status_RUNNING}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := neverStarted(c.task, c.noted); got != c.want {
				t.Errorf("%s: got %v", c.reason, got)
			}
		})
	}
}

func TestUnreadableRecordIsLeftAlone(t *testing.T) {
	r := &Runtime{cfg: Config{Log: slog.New(slog.DiscardHandler)}, pods: map[types.UID]*podState{}}
	record := containers.Container{ID: "x", Labels: map[string]string{labelAttempt: "many"}}
	if err := r.adoptContainer(t.Context(), record, &strays{}); err != nil || len(r.pods) != 0 {
		t.Errorf("one record that cannot be read must not fail the start: %v, pods %v", err, r.pods)
	}
}
