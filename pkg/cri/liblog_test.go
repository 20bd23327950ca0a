package cri

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
)

func TestBridgeLog(t *testing.T) {
	cases := map[string]struct {
		reason string
		level  slog.Level
		say    func(*logrus.Entry)
		want   string
	}{
		"Information": {"it tells of every request", slog.LevelInfo, func(e *logrus.Entry) { e.Info("trying next host") }, ""},
		"Debugging":   {"who debugs wants it", slog.LevelDebug, func(e *logrus.Entry) { e.Info("trying next host") }, "level=DEBUG msg=\"trying next host\" from=\"containerd's client\" host=h\n"},
		"Warning": {"with its fields, in one order", slog.LevelInfo, func(e *logrus.Entry) { e.WithError(errors.New("no")).Warn("bad") },
			"level=WARN msg=bad from=\"containerd's client\" error=no host=h\n"},
		"Error": {"as loud as it was", slog.LevelInfo, func(e *logrus.Entry) { e.Error("worse") }, "level=ERROR msg=worse from=\"containerd's client\" host=h\n"},
	}
	std := logrus.StandardLogger()
	level := std.GetLevel()
	t.Cleanup(func() {
		std.SetOutput(os.Stderr)
		std.SetLevel(level)
		std.ReplaceHooks(logrus.LevelHooks{})
	})
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			BridgeLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: tc.level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}})))
			tc.say(std.WithField("host", "h"))
			if diff := cmp.Diff(tc.want, out.String()); diff != "" || std.Out != io.Discard {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
