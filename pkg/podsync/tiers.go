package podsync

import (
	"context"
	"time"
)

// resizeTiers keeps the weight of the QoS tiers fit to the running pods. What
// fails is tried again; while nothing has failed, only a change wakes it.
func (p *Pool) resizeTiers(ctx context.Context) {
	again := BackOff{Initial: time.Second, Max: 5 * time.Minute}
	failures := 0
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.tiers:
		case <-retry:
		}
		retry = nil
		staying, leaving := p.holders()
		err := p.cfg.Cgroups.ResizeTiers(ctx, append(staying, leaving...))
		if err == nil || ctx.Err() != nil {
			failures = 0
			continue
		}
		failures++
		delay := again.after(failures)
		p.cfg.Log.Error("QoS tiers not resized", "err", err, "again", delay)
		retry = time.After(delay)
	}
}

// resized hears that a pod has got or given back its cgroup. Room that is freed
// may be what another pod waits for.
func (p *Pool) resized(freed bool) {
	signal(p.tiers)
	if freed {
		signal(p.kick)
	}
}
