package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// watchdog is how the pool tells systemd that it still gets around to its pods,
// and how often it should: twice in the time after which systemd ends an agent
// that is silent. The func is nil where nobody waits for it.
func watchdog(log *slog.Logger) (alive func(), every time.Duration, err error) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, 0, fmt.Errorf("systemd's watchdog: %w", err)
	}
	if limit == 0 {
		return nil, 0, nil
	}
	return func() {
		if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			log.Warn("tell systemd that the agent is alive", "err", err)
		}
	}, limit / 2, nil
}
