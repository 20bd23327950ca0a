package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
)

// watcher sees containers start in containerd's own event stream, which is
// independent of what a subject says.
type watcher struct {
	starts chan started
	end    chan error // why there is nothing more to see
	cancel context.CancelFunc
}

// started is a container that runs.
type started struct {
	pod string // without the node's name
	pid int
	at  time.Time
}

// watch looks at one containerd namespace until close.
func (m *machine) watch(ctx context.Context, namespace string) *watcher {
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(ctx, namespace))
	w := &watcher{starts: make(chan started, 4096), end: make(chan error, 1), cancel: cancel}
	events, errs := m.client.Subscribe(ctx, `topic=="/tasks/start"`)
	go func() {
		for {
			select {
			case err := <-errs:
				w.end <- err
				return
			case e := <-events:
				if e.Namespace != namespace {
					continue
				}
				v, err := typeurl.UnmarshalAny(e.Event)
				if err != nil {
					continue // not ours
				}
				start, ok := v.(*eventsapi.TaskStart)
				if !ok {
					continue
				}
				c, err := m.client.ContainerService().Get(ctx, start.ContainerID)
				if err != nil || c.Labels["io.cri-containerd.kind"] == "sandbox" {
					continue // a pause process is not what was asked for
				}
				w.starts <- started{
					pod: strings.TrimSuffix(c.Labels["io.kubernetes.pod.name"], "-"+nodeName), pid: int(start.Pid), at: e.Timestamp,
				}
			}
		}
	}()
	return w
}

func (w *watcher) close() { w.cancel() }

// next returns the next container that starts.
func (w *watcher) next(ctx context.Context) (started, error) {
	select {
	case s := <-w.starts:
		return s, nil
	case err := <-w.end:
		return started{}, fmt.Errorf("watch containerd's events: %w", err)
	case <-time.After(patience):
		return started{}, fmt.Errorf("no container has started for %s", patience)
	case <-ctx.Done():
		return started{}, ctx.Err()
	}
}
