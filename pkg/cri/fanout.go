package cri

import (
	"errors"
	"io"
	"slices"
	"sync"
)

// errSlowClient ends the attachment of a client that does not read.
var errSlowClient = errors.New("the client reads too slowly")

// fanout copies a container's output to whoever is attached.
type fanout struct {
	mu      sync.Mutex // guards all below
	clients []*subscriber
	over    bool
}

// subscriber is one attached client with a bounded queue.
type subscriber struct {
	stdout, stderr io.Writer
	queue          chan chunk
	ended          chan error // buffered: one value
}

type chunk struct {
	stream string
	data   []byte
}

const maxQueuedChunks = 256

func (f *fanout) subscribe(stdout, stderr io.Writer) *subscriber {
	s := &subscriber{stdout: stdout, stderr: stderr, queue: make(chan chunk, maxQueuedChunks), ended: make(chan error, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		close(s.queue)
	} else {
		f.clients = append(f.clients, s)
	}
	go s.deliver() // ends when the queue is closed, by unsubscribe at the latest
	return s
}

// deliver writes the queue to the client.
func (s *subscriber) deliver() {
	var err error
	for c := range s.queue {
		w := s.stdout
		if c.stream == "stderr" {
			w = s.stderr
		}
		if w == nil || err != nil {
			continue
		}
		_, err = w.Write(c.data)
	}
	select {
	case s.ended <- err:
	default:
	}
}

func (f *fanout) unsubscribe(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.clients, s); i >= 0 {
		f.clients = slices.Delete(f.clients, i, i+1)
		close(s.queue)
	}
}

// send queues p for every client; one whose queue is full is dropped, because
// the container must not wait for it.
func (f *fanout) send(stream string, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.clients) == 0 {
		return
	}
	c := chunk{stream: stream, data: slices.Clone(p)}
	f.clients = slices.DeleteFunc(f.clients, func(s *subscriber) bool {
		select {
		case s.queue <- c:
			return false
		default:
			s.ended <- errSlowClient
			close(s.queue)
			return true
		}
	})
}

// end tells every client that nothing follows.
func (f *fanout) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	for _, s := range f.clients {
		close(s.queue)
	}
	f.clients = nil
}
