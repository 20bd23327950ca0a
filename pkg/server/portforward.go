package server

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
)

func (s *service) portForward(w http.ResponseWriter, r *http.Request) error {
	if s.PortForward == nil {
		return errNotServed
	}
	opts, err := portforward.NewV4Options(r)
	if err != nil {
		return BadRequest(err.Error())
	}
	if len(opts.Ports) > maxForwardsOfSession {
		return BadRequest(fmt.Sprintf("%d ports at once are too many; %d are possible", len(opts.Ports), maxForwardsOfSession))
	}
	t, release, err := s.begin(r)
	if err != nil {
		return err
	}
	defer release()
	uw, r := watchClient(w, r)
	defer uw.end()
	f := &forwarder{ctx: r.Context(), forward: s.Funcs.PortForward, target: t, places: places{what: "connections through one port-forward", total: maxForwardsOfSession}}
	portforward.ServePortForward(uw, r, f, t.Pod, string(t.UID), opts, s.idle, streamCreationTimeout, []string{portforward.ProtocolV1Name})
	return nil
}

// forwarder connects the streams of one request.
type forwarder struct {
	ctx     context.Context //nolint:containedctx // of the request: the library calls with one that never ends
	forward func(context.Context, Target, int32, io.ReadWriteCloser) error
	target  Target
	places  places
}

// PortForward implements portforward.PortForwarder.
func (f *forwarder) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	release, err := f.places.take("", "")
	if err != nil {
		return err
	}
	defer release()
	return f.forward(f.ctx, f.target, port, stream)
}
