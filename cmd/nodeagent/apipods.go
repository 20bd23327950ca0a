package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sync/errgroup"

	"github.com/nodeagent/nodeagent/pkg/podsource"
	"github.com/nodeagent/nodeagent/pkg/podstatus"
	"github.com/nodeagent/nodeagent/pkg/podsync"
)

// apiPods is the traffic in pods with the API server.
type apiPods struct {
	source *podsource.API
	writer *podstatus.Writer
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
func (a *agent) newAPIPods() *apiPods {
	if a.cluster == nil {
		return nil
	}
	var known []*corev1.Pod
	for _, pod := range a.pool.Recorded() {
		if pod.Annotations[podsource.AnnotationSource] == podsource.SourceAPI {
			known = append(known, pod)
		}
	}
	a.objects.SetPods(known)
	a.desired.StandIn(podsource.SourceAPI, known)
	p := &apiPods{writer: podstatus.NewWriter(a.cluster.core, a.log)}
	p.source = &podsource.API{Client: a.cluster.core, NodeName: a.cfg.Agent.NodeName, Emit: func(pods, mirrors []*corev1.Pod) {
		p.writer.Observe(pods, mirrors)
		a.objects.SetPods(pods)
		a.desired.Set(podsource.SourceAPI, pods)
	}}
	return p
}

// Run keeps up with the API server until ctx ends.
func (p *apiPods) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.source.Run(ctx) })
	g.Go(func() error { return p.writer.Run(ctx) })
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
	}
}
