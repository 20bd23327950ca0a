package cri

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	units "github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress is how far a pull has come, in bytes. Total is 0 until it is known.
type Progress struct {
	Image       string
	Done, Total int64
}

// String is the text that the status of a waiting container has.
func (p Progress) String() string {
	done := units.BytesSize(float64(p.Done))
	if p.Total <= 0 {
		return fmt.Sprintf("pulling image %q: %s", p.Image, done)
	}
	return fmt.Sprintf("pulling image %q: %s of %s (%d%%)", p.Image, done, units.BytesSize(float64(p.Total)), p.Done*100/p.Total)
}

// ParseProgress finds the percentage in a text that String made, for who has
// only the status of a container.
func ParseProgress(text string) (percent int, ok bool) {
	m := regexp.MustCompile(`^pulling image ".*": .* \((\d+)%\)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, strings.HasPrefix(text, "pulling image ")
	}
	percent, err := strconv.Atoi(m[1])
	return percent, err == nil
}

// recordDescriptors is a handler that passes on what a pull consists of.
func recordDescriptors() (images.HandlerFunc, <-chan ocispec.Descriptor) {
	found := make(chan ocispec.Descriptor, 1024)
	return func(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		select {
		case found <- d:
		default: // more layers than anyone counts; progress is only a picture
		}
		return nil, nil
	}, found
}

// watchPull tells how far a pull is and ends one that stalls. It returns the
// sizes of the parts that it knows of, by digest.
func (m *Images) watchPull(ctx context.Context, stalled context.CancelCauseFunc, found <-chan ocispec.Descriptor, progress func(done, total int64)) map[string]int64 {
	all := map[string]int64{}
	last, since := int64(-1), time.Now()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for len(found) > 0 {
				d := <-found
				all[d.Digest.String()] = d.Size
			}
			return all
		case d := <-found:
			all[d.Digest.String()] = d.Size
			continue
		case <-tick.C:
		}
		done, total, complete := m.progressOf(ctx, all)
		if done != last || complete {
			last, since = done, time.Now()
			progress(done, total)
		}
		if time.Since(since) > m.cfg.StallTimeout {
			stalled(&stalledError{after: m.cfg.StallTimeout})
			return all
		}
	}
}

// stalledError ends a pull to which nothing more comes.
type stalledError struct{ after time.Duration }

func (e *stalledError) Error() string { return fmt.Sprintf("no data received for %s", e.after) }

// progressOf adds up what is there of the parts of an image, in bytes. complete
// says that nothing is missing but unpacking.
func (m *Images) progressOf(ctx context.Context, all map[string]int64) (done, total int64, complete bool) {
	active := map[string]int64{} // bytes by digest
	if statuses, err := m.client.ContentStore().ListStatuses(ctx); err == nil {
		for _, s := range statuses {
			if i := strings.Index(s.Ref, "sha256:"); i >= 0 {
				active[s.Ref[i:]] = s.Offset
			}
		}
	}
	for digest, size := range all {
		total += size
		if offset, busy := active[digest]; busy {
			done += offset
		} else if m.hasContent(ctx, digest) {
			done += size
		}
	}
	return done, total, total > 0 && done == total
}
