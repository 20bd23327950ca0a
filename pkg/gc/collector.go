package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Reasons of events, in the kubelet's words.
const (
	FreeDiskSpaceFailed = "FreeDiskSpaceFailed"
	ImageGCFailed       = "ImageGCFailed"
)

const (
	// every is how often a pass is made; the kubelet's pace.
	every = 5 * time.Minute
	// early is how often to ask whether the first pass can be made: who starts on
	// a disk that is full must not wait.
	early = time.Second
)

// Collector removes images. Its fields are set before Run and not changed.
type Collector struct {
	Policy Policy
	Disk   func(ctx context.Context) (Disk, error)
	// Wanted are names and IDs that are in use or about to be, from memory: it is
	// asked in every pass. ok is false as long as that is not known.
	Wanted func() (keys []string, ok bool)
	// Used are those that the runtime knows to be in use.
	Used   func(ctx context.Context) ([]string, error)
	Images func(ctx context.Context) ([]Image, error)
	// Remove removes a name; one that is gone is success.
	Remove func(ctx context.Context, name string) error
	// Event is told of failures.
	Event func(reason, message string)
	Log   *slog.Logger

	last  map[string]time.Time // only Run and what it calls touch it
	since time.Time
}

// Run makes passes until ctx ends, the first as soon as it is known what is wanted.
func (c *Collector) Run(ctx context.Context) error {
	if c.Policy.Idle() {
		return nil
	}
	for pause := early; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if _, known := c.Wanted(); known {
			pause = every
		}
		err := c.pass(ctx, time.Now())
		if ctx.Err() != nil {
			return nil
		}
		if full := (*fullError)(nil); errors.As(err, &full) {
			c.Event(FreeDiskSpaceFailed, full.Error())
		} else if err != nil {
			c.Event(ImageGCFailed, err.Error())
		}
	}
}

// fullError says that removing images was not enough.
type fullError struct {
	excess uint64
	found  int
	disk   Disk
}

func (e *fullError) Error() string {
	return fmt.Sprintf("the file system of the images is %d%% full; %d bytes more should be free, and no image is left that may be removed (%d were): "+
		"remove other files, or have fewer images", e.disk.Used(), e.excess, e.found)
}

// pass removes what must go now.
func (c *Collector) pass(ctx context.Context, now time.Time) error {
	if c.since.IsZero() {
		c.since, c.last = now, map[string]time.Time{}
	}
	wanted, known := c.Wanted()
	if !known {
		return nil
	}
	for _, key := range wanted {
		c.last[key] = now
	}
	disk, err := c.Disk(ctx)
	if err != nil {
		return err
	}
	full := c.Policy.Full(disk)
	if !full && c.Policy.MaxAge == 0 {
		return nil
	}
	images, usage, err := c.look(ctx, wanted)
	if err != nil {
		return err
	}
	removable := Removable(images, usage, c.Policy, now)
	expired := Expired(removable, usage, c.Policy, now)
	var errs []error
	for i := range expired {
		errs = append(errs, c.remove(ctx, &expired[i], "unused for longer than imageMaximumGCAge"))
	}
	if full {
		rest := slices.DeleteFunc(removable, func(i Image) bool {
			return slices.ContainsFunc(expired, func(e Image) bool { return e.ID == i.ID })
		})
		errs = append(errs, c.makeRoom(ctx, rest))
	}
	return errors.Join(errs...)
}

// look asks the runtime what there is and who uses it, in this order: what came
// into use meanwhile is then seen.
func (c *Collector) look(ctx context.Context, wanted []string) ([]Image, Usage, error) {
	images, err := c.Images(ctx)
	if err != nil {
		return nil, Usage{}, err
	}
	used, err := c.Used(ctx)
	if err != nil {
		return nil, Usage{}, err
	}
	there := map[string]bool{}
	for i := range images {
		for _, key := range append([]string{images[i].ID}, images[i].Names...) {
			there[key] = true
		}
	}
	maps.DeleteFunc(c.last, func(key string, _ time.Time) bool { return !there[key] })
	now := map[string]bool{}
	for _, key := range slices.Concat(wanted, used) {
		now[key] = key != ""
	}
	return images, Usage{Now: now, Last: c.last, Since: c.since}, nil
}

// makeRoom removes images until the disk is at the low threshold. How much one
// frees is not known before: images share layers.
func (c *Collector) makeRoom(ctx context.Context, removable []Image) error {
	removed := 0
	var errs []error
	for i := range removable {
		disk, err := c.Disk(ctx)
		if err != nil || disk.Excess(c.Policy.Low) == 0 {
			return errors.Join(append(errs, err)...)
		}
		if err := c.remove(ctx, &removable[i], "the file system is full"); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	disk, err := c.Disk(ctx)
	if excess := disk.Excess(c.Policy.Low); err == nil && excess > 0 {
		err = &fullError{excess: excess, found: removed, disk: disk}
	}
	return errors.Join(append(errs, err)...)
}

// remove asks once more who wants the image: a pod may have come meanwhile.
func (c *Collector) remove(ctx context.Context, i *Image, why string) error {
	wanted, _ := c.Wanted()
	if slices.Contains(wanted, i.ID) || slices.ContainsFunc(i.Names, func(n string) bool { return slices.Contains(wanted, n) }) {
		return nil
	}
	for _, name := range i.Names {
		if err := c.Remove(ctx, name); err != nil {
			return fmt.Errorf("remove unused image %s: %w", name, err)
		}
		c.Log.Info("unused image removed", "image", name, "why", why)
	}
	return nil
}
