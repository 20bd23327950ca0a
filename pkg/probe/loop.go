package probe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// loop asks one probe until nothing more is to be learnt from it or ctx ends.
func (m *Manager) loop(ctx context.Context, c *container, kind string) {
	if kind != Startup {
		select {
		case <-ctx.Done():
			return
		case <-c.started:
		}
	} else if m.Started(c.id) {
		return // so an earlier agent found
	}
	period := time.Duration(c.probes[kind].spec.PeriodSeconds) * time.Second
	for wait := c.firstWait(kind, period); sleep(ctx, wait); {
		began := time.Now()
		if !m.ask(ctx, c, kind) {
			return
		}
		wait = period - time.Since(began)
	}
}

// firstWait is the time until a probe is first asked. Where a result is known
// from an earlier agent there is no hurry, and all containers of a node, which
// such a moment has in common, are not asked at once.
func (c *container) firstWait(kind string, period time.Duration) time.Duration {
	wait := time.Until(c.startedAt.Add(time.Duration(c.probes[kind].spec.InitialDelaySeconds) * time.Second))
	if c.seeded && kind != Startup && period > 0 {
		wait = max(wait, rand.N(period)) //nolint:gosec // spreads load, keeps no secret
	}
	return wait
}

// sleep waits and reports false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
	case <-time.After(max(d, 0)):
	}
	return ctx.Err() == nil
}

// ask puts the question once, tells what was answered, and reports whether to go
// on asking.
func (m *Manager) ask(ctx context.Context, c *container, kind string) (again bool) {
	a, err := m.check(ctx, c, c.probes[kind].spec)
	title := strings.ToUpper(kind[:1]) + kind[1:] + " probe of container " + c.spec.Name
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil: // nothing was learnt of the container
		m.tally(c, kind, unknown)
		m.deps.Event(c.pod, c.spec.Name, "Unhealthy", fmt.Sprintf("%s errored: %v", title, err))
		return true
	case !a.ok:
		m.tally(c, kind, failed)
		m.deps.Event(c.pod, c.spec.Name, "Unhealthy", fmt.Sprintf("%s failed: %s", title, a.remark))
	case a.remark != "":
		m.deps.Event(c.pod, c.spec.Name, "ProbeWarning", fmt.Sprintf("%s warning: %s", title, a.remark))
	}
	if a.ok {
		m.tally(c, kind, successful)
	}
	changed, again := m.count(c, kind, a.ok)
	if changed {
		m.deps.OnChange(c.uid)
	}
	return again
}

// count adds an answer. It reports whether the result has changed, and whether
// it can change again.
func (m *Manager) count(c *container, kind string, ok bool) (changed, again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.containers[c.id] != c {
		return false, false
	}
	p := c.probes[kind]
	changed = p.counter.add(p.spec, ok)
	if kind == Startup && p.counter.result == Success {
		c.start()
		return changed, false
	}
	return changed, kind == Readiness || p.counter.result != Failure
}
