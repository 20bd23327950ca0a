package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilexec "k8s.io/utils/exec"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/inspect"
	"github.com/nodeagent/nodeagent/pkg/podstatus"
	"github.com/nodeagent/nodeagent/pkg/server"
)

// funcs answers the local clients.
func (a *agent) funcs() server.Funcs {
	return server.Funcs{
		Pods: func(context.Context) (*corev1.PodList, error) {
			return &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: a.pods()}, nil
		},
		WatchPods: func(ctx context.Context, send func(server.PodEvent) error) error {
			return a.board.Watch(ctx, func(c podstatus.Change) error {
				return send(server.PodEvent{Type: c.Type, Object: withKind(c.Pod)})
			})
		},
		Events: func(_ context.Context, namespace, pod string) (*corev1.EventList, error) {
			return &corev1.EventList{Items: a.board.Events(namespace, pod)}, nil
		},
		Healthy: a.healthy, Find: a.target,
		Logs: a.logs, Exec: a.exec, Attach: a.attach, PortForward: a.portForward, Restart: a.restart,
		RunningPods: a.runningPods, Config: a.configz,
		Cgroups:  func(ctx context.Context) (any, error) { return a.cgroups(ctx) },
		Inspect:  a.inspect,
		Images:   func(ctx context.Context) (any, error) { return a.imageViews(ctx) },
		Problems: func(context.Context) (any, error) { return a.problems(), nil },
		Node:     func(ctx context.Context) (any, error) { return a.node(ctx) },
	}
}

func (a *agent) pods() []corev1.Pod {
	pods := a.board.List()
	for i := range pods {
		pods[i] = withKind(pods[i])
		pods[i].ManagedFields = nil
	}
	return pods
}

// withKind names the type, so that what `-o yaml` prints can be used again.
func withKind(p corev1.Pod) corev1.Pod {
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	return p
}

// find returns a pod by name, the newest when an old one of that name is ending.
func (a *agent) find(namespace, name string) (*corev1.Pod, error) {
	return a.findUID(namespace, name, "")
}

// findUID is find for a pod of which the UID may be known.
func (a *agent) findUID(namespace, name string, uid types.UID) (*corev1.Pod, error) {
	pods := a.board.List()
	for i := range slices.Backward(pods) {
		if pods[i].Namespace == namespace && pods[i].Name == name && (uid == "" || pods[i].UID == uid) {
			return &pods[i], nil
		}
	}
	return nil, server.NotFound(fmt.Sprintf("pod %q not found in namespace %q", name, namespace))
}

// attempts are those of a container, newest first; there is at least one.
func (a *agent) attempts(t server.Target) ([]cri.Container, error) {
	pod, err := a.findUID(t.Namespace, t.Pod, t.UID)
	if err != nil {
		return nil, err
	}
	observed, _ := a.runtime.Pod(pod.UID)
	attempts := observed.Attempts(t.Container)
	if len(attempts) == 0 {
		return nil, server.BadRequest(fmt.Sprintf("container %q in pod %q is waiting to start: %s", t.Container, t.Pod, waitingReason(pod, t.Container)))
	}
	return attempts, nil
}

// waitingReason says why a container has not started, in the kubelet's words.
func waitingReason(pod *corev1.Pod, container string) string {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if s.Name != container || s.State.Waiting == nil {
			continue
		}
		switch reason := s.State.Waiting.Reason; reason {
		case "ErrImagePull":
			return "image can't be pulled"
		case "ImagePullBackOff":
			return "trying and failing to pull image"
		default:
			return reason
		}
	}
	return "no logs yet"
}

func (a *agent) logs(ctx context.Context, q server.LogQuery, stdout, stderr io.Writer) error {
	attempts, err := a.attempts(server.Target{Namespace: q.Namespace, Pod: q.Pod, Container: q.Container})
	if err != nil {
		return err
	}
	c := attempts[0]
	if q.Previous {
		if len(attempts) < 2 {
			return server.BadRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", q.Container, q.Pod))
		}
		c = attempts[1]
	}
	return cri.ReadLogs(ctx, cri.LogQuery{
		Path: c.LogPath, Follow: q.Follow, Tail: q.Tail, Since: q.Since, Timestamps: q.Timestamps,
		Done: a.runtime.Ended(c.ID),
	}, stdout, stderr)
}

func (a *agent) running(s *server.Session) (string, error) {
	attempts, err := a.attempts(server.Target{Namespace: s.Namespace, Pod: s.Pod, UID: s.UID, Container: s.Container})
	if err != nil {
		return "", err
	}
	if attempts[0].State != cri.Running {
		return "", server.BadRequest(fmt.Sprintf("container %q of pod %q is not running", s.Container, s.Pod))
	}
	return attempts[0].ID, nil
}

func (a *agent) exec(ctx context.Context, s server.Session) error {
	id, err := a.running(&s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	code, err := a.runtime.Exec(ctx, id, cri.ExecOptions{
		Cmd: s.Command, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, TTY: s.TTY, Resize: sizes(ctx, s.Resize),
	})
	if ctx.Err() != nil { // read only if it is the agent that ends
		say(&s, "the agent stops; the command was ended")
	}
	if notStarted, ok := errors.AsType[*cri.CommandError](err); ok { // said and counted as a shell does
		say(&s, notStarted.Error())
		code, err = notStarted.Code, nil
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// say writes a line to the client of a session.
func say(s *server.Session, line string) {
	switch {
	case s.TTY && s.Stdout != nil:
		_, _ = fmt.Fprintf(s.Stdout, "%s\r\n", line) // the client may be gone
	case s.Stderr != nil:
		_, _ = fmt.Fprintln(s.Stderr, line)
	}
}

func (a *agent) attach(ctx context.Context, s server.Session) error {
	id, err := a.running(&s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = a.runtime.Attach(ctx, id, cri.AttachOptions{Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Resize: sizes(ctx, s.Resize)})
	if ctx.Err() != nil { // read only if it is the agent that ends
		say(&s, "the agent stops; the container goes on")
	}
	return err
}

// sizes turns the server's terminal sizes into the runtime's, until ctx ends.
func sizes(ctx context.Context, in <-chan server.TerminalSize) <-chan cri.Size {
	if in == nil {
		return nil
	}
	out := make(chan cri.Size)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case s, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- cri.Size{Width: s.Width, Height: s.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

func (a *agent) restart(_ context.Context, namespace, name, container string) error {
	pod, err := a.find(namespace, name)
	if err != nil {
		return err
	}
	return a.pool.Restart(pod.UID, container)
}

func (a *agent) problems() []problem {
	out := []problem{}
	for _, p := range a.source.Problems() {
		out = append(out, problem{File: p.File, Line: p.Line, Pod: p.Pod, Error: p.Err.Error()})
	}
	return out
}

func (a *agent) node(ctx context.Context) (nodeView, error) {
	v := nodeView{NodeName: a.cfg.Agent.NodeName, AgentVersion: version, CgroupVersion: a.tree.Version(), CgroupDriver: "cgroupfs"}
	if a.tree.SystemdDriver() {
		v.CgroupDriver = "systemd"
	}
	c, err := a.runtime.Client().Version(ctx)
	if err != nil {
		return v, fmt.Errorf("ask containerd for its version: %w", err)
	}
	v.ContainerdVersion = c.Version
	v.KernelVersion, err = kernelVersion()
	return v, err
}

// cgroupOf is the path of a pod's cgroup, or empty.
func (a *agent) cgroupOf(uid types.UID) string {
	for _, p := range a.board.List() {
		if p.UID == uid {
			cg, _, err := a.tree.Plan(&p)
			if err != nil {
				return ""
			}
			return cg.Path
		}
	}
	return ""
}

// inspect goes from a pod to its cgroup, its processes and their namespaces.
func (a *agent) inspect(ctx context.Context, namespace, name string) (any, error) {
	pod, err := a.find(namespace, name)
	if err != nil {
		return nil, err
	}
	view := &inspectView{
		Namespace: namespace, Pod: name, UID: string(pod.UID), QOSClass: string(pod.Status.QOSClass), Cgroup: a.cgroupOf(pod.UID),
		Containers: []inspectContainer{},
	}
	reader := inspect.Reader{ProcRoot: "/proc"}
	observed, _ := a.runtime.Pod(pod.UID)
	var groups []inspect.Group
	for i := range observed.Containers {
		c := &observed.Containers[i]
		if c.State != cri.Running {
			continue
		}
		dir := cri.CgroupDir(c.CgroupPath)
		pids, err := a.tree.Processes(dir)
		if err != nil {
			return nil, err
		}
		g, err := reader.Group(c.Name, pids)
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
		view.Containers = append(view.Containers, inspectContainer{Group: g, ID: c.ID, Cgroup: dir})
	}
	if view.Namespaces, err = reader.Share(groups); err != nil {
		return nil, err
	}
	tree, err := a.cgroups(ctx)
	if err != nil {
		return nil, err
	}
	view.Cgroups = tree.around(view.Cgroup)
	view.Network = a.networkOf(ctx, observed.Sandbox)
	return view, nil
}

// networkOf tells the addresses of a sandbox, and what its network's plugins find
// wrong with it.
func (a *agent) networkOf(ctx context.Context, s *cri.Sandbox) string {
	switch {
	case s == nil:
		return "none"
	case s.HostNetwork:
		return "the machine's"
	}
	addresses := strings.Join(s.IPs, ", ")
	if err := a.network.Check(ctx, s.ID, s.NetNS); err != nil {
		return fmt.Sprintf("%s, broken: %v", addresses, err)
	}
	return addresses + ", checked"
}
