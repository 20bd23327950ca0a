package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/nodeagent/nodeagent/pkg/podsource"
	"github.com/nodeagent/nodeagent/pkg/podstatus"
	"github.com/nodeagent/nodeagent/pkg/podsync"
)

// offlinePods, below RootDir, holds the pods that are kept over a reboot.
const offlinePods = "offline-pods.json"

// apiPods is the traffic in pods with the API server.
type apiPods struct {
	source  *podsource.API
	writer  *podstatus.Writer
	mirrors *podstatus.Mirrors
	events  *podstatus.Recorder
	offline *podsource.Offline // nil unless asked for
}

// podSources are all that must have reported before anything is removed.
func (a *agent) podSources() []string {
	if a.cluster == nil {
		return []string{podsource.Source}
	}
	return []string{podsource.Source, podsource.SourceAPI}
}

// newAPIPods returns nil without an API server. Until the server has reported, the
// node goes on with the pods that an earlier agent had from it.
func (a *agent) newAPIPods() (*apiPods, error) {
	if a.cluster == nil {
		return nil, nil
	}
	var known []*corev1.Pod
	for _, pod := range a.pool.Recorded() {
		if pod.Annotations[podsource.AnnotationSource] == podsource.SourceAPI {
			known = append(known, pod)
		}
	}
	var offline *podsource.Offline
	if a.cfg.Agent.OfflinePods {
		offline = podsource.NewOffline(filepath.Join(a.cfg.Agent.RootDir, offlinePods), a.log)
		known = a.withOffline(known, offline)
	}
	a.objects.SetPods(known)
	a.desired.StandIn(podsource.SourceAPI, known)
	// Events have a limit of their own: in a burst of starts they must not hold up
	// what the rest of the cluster waits for.
	rc := rest.CopyConfig(a.cluster.config)
	events, err := corev1client.NewForConfig(rc)
	if err != nil {
		return nil, err
	}
	p := &apiPods{
		offline: offline,
		writer:  podstatus.NewWriter(a.cluster.core, a.log),
		events:  podstatus.NewRecorder(events, a.log),
	}
	p.mirrors = podstatus.NewMirrors(podstatus.MirrorsConfig{
		Client: a.cluster.core, NodeUID: a.nodeUID, Living: p.writer.Static,
		Event: func(pod *corev1.Pod, reason, message string) {
			a.event(pod, "", corev1.EventTypeWarning, reason, message)
		},
		Log: a.log,
	})
	p.source = &podsource.API{Client: a.cluster.core, NodeName: a.cfg.Agent.NodeName, Emit: func(pods, mirrors []*corev1.Pod) {
		p.writer.Observe(pods, mirrors)
		a.objects.SetPods(pods)
		p.mirrors.Observe(mirrors)
		a.desired.Set(podsource.SourceAPI, pods)
		if offline != nil {
			offline.Set(pods)
		}
	}}
	return p, nil
}

// withOffline adds the pods that were kept over a reboot, which has lost their
// records.
func (a *agent) withOffline(known []*corev1.Pod, offline *podsource.Offline) []*corev1.Pod {
	kept, err := offline.Load()
	if err != nil {
		a.log.Error("no pods until the API server answers", "err", err)
	}
	for _, pod := range kept {
		if !slices.ContainsFunc(known, func(p *corev1.Pod) bool { return p.UID == pod.UID }) {
			known = append(known, pod)
		}
	}
	return known
}

// nodeUID asks the API server for this node.
func (a *agent) nodeUID(ctx context.Context) (types.UID, error) {
	node, err := a.cluster.core.Nodes().Get(ctx, a.cfg.Agent.NodeName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("get node %s: %w", a.cfg.Agent.NodeName, err)
	}
	return node.UID, nil
}

// Run keeps up with the API server until ctx ends.
func (p *apiPods) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	parts := []func(context.Context) error{p.source.Run, p.writer.Run, p.mirrors.Run, p.events.Run}
	if p.offline != nil {
		parts = append(parts, p.offline.Run)
	}
	for _, part := range parts {
		g.Go(func() error { return part(ctx) })
	}
	return g.Wait()
}

// statusSink tells everyone who wants to know how the pods do.
type statusSink struct{ *agent }

var _ podsync.StatusSink = statusSink{}

func (s statusSink) Set(pod *corev1.Pod) {
	s.board.Set(pod)
	if s.api != nil {
		s.api.writer.Set(pod)
	}
}

func (s statusSink) Release(pod *corev1.Pod) {
	if s.api != nil {
		s.api.writer.Release(pod)
	}
}

func (s statusSink) Remove(uid types.UID) {
	s.board.Remove(uid)
	if s.api != nil {
		s.api.writer.Remove(uid)
		s.api.mirrors.Poke() // what they show may be gone now
	}
}
