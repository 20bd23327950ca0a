package server

import (
	"container/list"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	maxRemembered = 4096
	// longQuestion is how long a question, of which the caller makes up a part, may
	// be to be remembered, in bytes.
	longQuestion = 10_000
)

// memory remembers answers of the API server for a while. Questions, which may
// hold secrets, are only kept as a hash that nobody outside can compute. Whoever
// asks what somebody else is just asking waits for that answer.
type memory[V any] struct {
	secret [sha256.Size]byte

	mu     sync.Mutex // guards all below; never held while asking
	known  map[question]*list.Element
	order  list.List // of *answer[V], the one used last in front
	asking map[question]*answer[V]
}

type question [sha256.Size]byte

type answer[V any] struct {
	question question
	value    V
	err      error
	until    time.Time
	done     chan struct{} // closed once the rest is final
}

func newMemory[V any]() *memory[V] {
	m := &memory[V]{known: map[question]*list.Element{}, asking: map[question]*answer[V]{}}
	_, _ = rand.Read(m.secret[:]) // never fails
	return m
}

// recall answers a question from memory, or asks, and remembers for as long as
// ask says. Errors are not remembered. What ask does is not broken off when ctx
// ends: others may wait for it.
func (m *memory[V]) recall(ctx context.Context, text []byte, ask func(context.Context) (V, time.Duration, error)) (V, error) {
	if len(text) >= longQuestion {
		value, _, err := ask(ctx)
		return value, err
	}
	mac := hmac.New(sha256.New, m.secret[:])
	mac.Write(text)
	q := question(mac.Sum(nil))
	a, mine := m.lookUp(q)
	if mine {
		var ttl time.Duration
		a.value, ttl, a.err = ask(context.WithoutCancel(ctx))
		m.remember(a, ttl)
	}
	select {
	case <-a.done:
		return a.value, a.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// lookUp returns the answer to a question, which may be still to come. If it is
// the caller's to ask for, mine is true.
func (m *memory[V]) lookUp(q question) (a *answer[V], mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[q]; e != nil {
		a, _ := e.Value.(*answer[V])
		if time.Now().Before(a.until) {
			m.order.MoveToFront(e)
			return a, false
		}
		m.forget(e)
	}
	if a := m.asking[q]; a != nil {
		return a, false
	}
	a = &answer[V]{question: q, done: make(chan struct{})}
	m.asking[q] = a
	return a, true
}

func (m *memory[V]) remember(a *answer[V], ttl time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.asking, a.question)
	close(a.done)
	if a.err != nil || ttl <= 0 {
		return
	}
	a.until = time.Now().Add(ttl)
	m.known[a.question] = m.order.PushFront(a)
	if m.order.Len() > maxRemembered {
		m.forget(m.order.Back())
	}
}

// forget needs mu.
func (m *memory[V]) forget(e *list.Element) {
	a, _ := m.order.Remove(e).(*answer[V])
	delete(m.known, a.question)
}
