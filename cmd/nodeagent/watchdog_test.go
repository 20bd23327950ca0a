package main

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestWatchdog(t *testing.T) {
	for name, tc := range map[string]struct {
		reason    string
		usec, pid string
		every     time.Duration
		bad       bool
	}{
		"NoService":   {reason: "in a terminal nobody waits"},
		"NotForUs":    {reason: "the variables may be those of the service that started us", usec: "60000000", pid: "1"},
		"Ours":        {reason: "twice in the time, so that one may be late", usec: "60000000", pid: strconv.Itoa(os.Getpid()), every: 30 * time.Second},
		"NotANumber":  {reason: "a watchdog that would end us must not be overlooked", usec: "soon", bad: true},
		"WithoutTime": {reason: "a limit of zero is none that could be kept", usec: "0", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "notify")
			systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer systemd.Close()
			t.Setenv("NOTIFY_SOCKET", socket)
			t.Setenv("WATCHDOG_USEC", tc.usec)
			t.Setenv("WATCHDOG_PID", tc.pid)
			alive, every, err := watchdog(slog.New(slog.DiscardHandler))
			if (err != nil) != tc.bad || every != tc.every || (alive != nil) != (tc.every > 0) {
				t.Fatalf("%s: got %v, %v, a func: %v", tc.reason, every, err, alive != nil)
			}
			if alive == nil {
				return
			}
			alive()
			message := make([]byte, 100)
			n, err := systemd.Read(message)
			if err != nil || string(message[:n]) != "WATCHDOG=1" {
				t.Errorf("systemd was told %q, %v", message[:n], err)
			}
		})
	}
}
