package cri

import (
	"context"
	"encoding/json"
	"time"
)

const (
	// progressEvery is how often a pull's progress is looked at.
	progressEvery = time.Second
	// stallTimeout ends a pull that receives nothing, unless configured otherwise.
	stallTimeout = 5 * time.Minute
)

// pull is one that is under way. All who want the same image with the same
// credentials share it; it ends early when the last of them has lost interest.
type pull struct {
	cancel context.CancelFunc
	done   chan struct{} // closed once image and err are final
	image  Image
	err    error

	// Images.mu guards all below.
	waiters     map[chan struct{}]bool // capacity 1: there is news
	soFar, size int64
}

// pullOnce pulls an image, or shares the pull of those who already do.
func (m *Images) pullOnce(ctx context.Context, ref string, req *ImageRequest) (Image, error) {
	credentials, err := json.Marshal(req.Credentials)
	if err != nil {
		return Image{}, err
	}
	key := ref + " " + string(credentials)
	news := make(chan struct{}, 1)
	p := m.join(ctx, key, ref, req.Credentials, news)
	for {
		if req.Progress != nil {
			req.Progress(m.progress(p)) // also at once: even the fastest pull is told of
		}
		select {
		case <-news:
		case <-p.done:
			return p.image, p.err
		case <-ctx.Done():
			m.leave(key, p, news)
			return Image{}, ctx.Err()
		}
	}
}

// join adds a waiter to a pull, which it begins if there is none. The pull's
// goroutine belongs to its waiters: the last one returns after it.
func (m *Images) join(ctx context.Context, key, ref string, credentials []Credential, news chan struct{}) *pull {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, running := m.pulls[key]; running {
		p.waiters[news] = true
		return p
	}
	p := &pull{done: make(chan struct{}), waiters: map[chan struct{}]bool{news: true}}
	m.pulls[key] = p
	// The end of one waiter's context must not end the pull of the others.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	go func() {
		defer cancel()
		p.image, p.err = m.pull(life, ref, credentials, func(done, total int64) { m.tell(p, done, total) })
		m.mu.Lock()
		if m.pulls[key] == p {
			delete(m.pulls, key)
		}
		m.mu.Unlock()
		close(p.done)
	}()
	return p
}

// leave takes a waiter away, and ends the pull with the last one.
func (m *Images) leave(key string, p *pull, news chan struct{}) {
	m.mu.Lock()
	delete(p.waiters, news)
	last := len(p.waiters) == 0
	if last && m.pulls[key] == p {
		delete(m.pulls, key) // who comes now begins anew
	}
	m.mu.Unlock()
	if last {
		p.cancel()
		<-p.done
	}
}

// tell wakes all who wait for p.
func (m *Images) tell(p *pull, done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.soFar, p.size = done, total
	for news := range p.waiters {
		select {
		case news <- struct{}{}:
		default: // it will see this too
		}
	}
}

func (m *Images) progress(p *pull) (done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.soFar, p.size
}

// pull waits for its turn.
func (m *Images) pull(ctx context.Context, ref string, credentials []Credential, progress func(done, total int64)) (Image, error) {
	if m.turns != nil {
		select {
		case m.turns <- struct{}{}:
			defer func() { <-m.turns }()
		case <-ctx.Done():
			return Image{}, ctx.Err()
		}
	}
	return m.fetch(ctx, ref, credentials, progress)
}
