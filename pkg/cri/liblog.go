package cri

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
)

// BridgeLog sends what containerd's client library logs to log. It would write to
// standard error otherwise, in a form of its own and into the live table.
func BridgeLog(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.WarnLevel)
	if log.Enabled(context.Background(), slog.LevelDebug) {
		std.SetLevel(logrus.DebugLevel)
	}
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(bridge{log})
}

// bridge is a hook of the library's logger.
type bridge struct{ log *slog.Logger }

func (bridge) Levels() []logrus.Level { return logrus.AllLevels }

// Fire passes a message on. What the library takes for information is of use to
// who debugs, and to nobody else.
func (b bridge) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch {
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	args := []any{"from", "containerd's client"}
	for _, key := range slices.Sorted(maps.Keys(e.Data)) {
		args = append(args, key, e.Data[key])
	}
	b.log.Log(context.Background(), level, e.Message, args...)
	return nil
}
