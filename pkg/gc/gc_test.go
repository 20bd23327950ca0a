package gc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	mib    = 1 << 20
	policy = 90 // the threshold, high and low
)

// store is a runtime in memory: it frees what an image has when its last name goes.
type store struct {
	mu     sync.Mutex // guards all below from a collector that runs
	images []Image
	wanted []string
	used   []string
	synced bool
	disk   Disk
	asked  int
	broken map[string]error
	events []string
}

// base is a disk that is full to 95 %, with three images of 5 % each: old, recent
// and used, by when they were made.
func base(now time.Time) *store {
	return &store{
		synced: true, disk: Disk{Capacity: 1000 * mib, Available: 50 * mib}, used: []string{"used"}, broken: map[string]error{},
		images: []Image{
			{ID: "sha-recent", Names: []string{"recent"}, Size: 50 * mib, Created: now.Add(-time.Hour)},
			{ID: "sha-used", Names: []string{"used"}, Size: 50 * mib, Created: now.Add(-9 * time.Hour)},
			{ID: "sha-old", Names: []string{"old", "old-too"}, Size: 50 * mib, Created: now.Add(-5 * time.Hour)},
		},
	}
}

func (s *store) collector(t *testing.T, p Policy) *Collector {
	return &Collector{
		Policy: p,
		Disk: func(context.Context) (Disk, error) {
			defer s.lock()()
			return s.disk, nil
		},
		Wanted: func() ([]string, bool) {
			defer s.lock()()
			return s.wanted, s.synced
		},
		Used: func(context.Context) ([]string, error) {
			defer s.lock()()
			return s.used, nil
		},
		Images: func(context.Context) ([]Image, error) {
			defer s.lock()()
			s.asked++
			return slices.Clone(s.images), nil
		},
		Remove: func(_ context.Context, name string) error {
			defer s.lock()()
			if err := s.broken[name]; err != nil {
				return err
			}
			for i := range s.images {
				s.images[i].Names = slices.DeleteFunc(slices.Clone(s.images[i].Names), func(n string) bool { return n == name })
				if len(s.images[i].Names) == 0 {
					s.disk.Available += uint64(s.images[i].Size)
				}
			}
			s.images = slices.DeleteFunc(s.images, func(i Image) bool { return len(i.Names) == 0 })
			return nil
		},
		Event: func(reason, _ string) {
			defer s.lock()()
			s.events = append(s.events, reason)
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// lock locks the store and returns what unlocks it.
func (s *store) lock() (unlock func()) {
	s.mu.Lock()
	return s.mu.Unlock
}

// change changes the store beside a collector that runs.
func (s *store) change(f func()) {
	defer s.lock()()
	f()
}

func (s *store) left() []string {
	defer s.lock()()
	var out []string
	for _, i := range s.images {
		out = append(out, i.Names...)
	}
	return out
}

func TestPass(t *testing.T) {
	cases := map[string]struct {
		reason string
		change func(*store, *Policy)
		left   []string
		full   bool
	}{
		"Least":     {"what was of use longest ago goes first, and no more than must", func(*store, *Policy) {}, []string{"recent", "used"}, false},
		"BelowHigh": {"nothing goes below the high threshold", func(s *store, _ *Policy) { s.disk.Available = 101 * mib }, []string{"recent", "used", "old", "old-too"}, false},
		"DownToLow": {"above it the low one is the goal", func(_ *store, p *Policy) { p.Low = 87 }, []string{"used"}, false},
		"NotEnough": {"what is in use stays even when that is not enough", func(_ *store, p *Policy) { p.Low = 50 }, []string{"used"}, true},
		"Disabled":  {"a high threshold of 100 is none", func(s *store, p *Policy) { p.High, s.disk.Available = 100, 0 }, []string{"recent", "used", "old", "old-too"}, false},
		"Wanted":    {"a pod that has no container yet counts", func(s *store, _ *Policy) { s.wanted = []string{"old-too"} }, []string{"used", "old", "old-too"}, false},
		"UsedByID":  {"so does a container whose image has lost its name", func(s *store, _ *Policy) { s.used = []string{"sha-old", ""} }, []string{"recent", "old", "old-too"}, false},
		"Kept":      {"what cannot be had again stays", func(s *store, _ *Policy) { s.images[2].Keep = true }, []string{"used", "old", "old-too"}, false},
		"TooYoung":  {"an image may be on its way to its first container", func(_ *store, p *Policy) { p.MinAge, p.Low = 2*time.Hour, 87 }, []string{"recent", "used"}, true},
		"NotSynced": {"as long as a source is silent nothing is unused", func(s *store, _ *Policy) { s.synced = false }, []string{"recent", "used", "old", "old-too"}, false},
		"RemoveFails": {"one that cannot be removed does not save the others", func(s *store, p *Policy) {
			s.broken["old"], p.Low = errors.New("busy"), 89
		}, []string{"used", "old", "old-too"}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			s, p := base(now), Policy{High: policy, Low: policy}
			tc.change(s, &p)
			err := s.collector(t, p).pass(t.Context(), now)
			if diff := cmp.Diff(tc.left, s.left()); diff != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
			if full := (*fullError)(nil); errors.As(err, &full) != tc.full {
				t.Errorf("%s: error %v", tc.reason, err)
			}
		})
	}
}

func TestAPodThatComesMeanwhileKeepsItsImage(t *testing.T) {
	now := time.Now()
	s := base(now)
	c := s.collector(t, Policy{High: policy, Low: 80})
	remove := c.Remove
	c.Remove = func(ctx context.Context, name string) error {
		s.wanted = []string{"recent"} // the next in line
		return remove(ctx, name)
	}
	_ = c.pass(t.Context(), now)
	if diff := cmp.Diff([]string{"recent", "used"}, s.left()); diff != "" {
		t.Errorf("who wants an image is asked before each one goes (-want +got):\n%s", diff)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := base(time.Now())
		s.disk.Available = 500 * mib
		s.used, s.wanted = nil, []string{"used"}
		c := s.collector(t, Policy{High: policy, Low: policy, MinAge: 2 * time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s.asked != 0 {
			t.Errorf("the runtime was asked %d times although there is room", s.asked)
		}
		s.change(func() { s.wanted, s.disk.Available = nil, 50*mib })
		time.Sleep(every)
		synctest.Wait()
		if diff := cmp.Diff([]string{"recent", "used"}, s.left()); diff != "" {
			t.Errorf("when it fills up, the oldest goes first; a use is remembered (-want +got):\n%s", diff)
		}
		s.change(func() { s.disk = Disk{Capacity: 2000 * mib} })
		time.Sleep(every)
		synctest.Wait()
		if diff := cmp.Diff([]string{FreeDiskSpaceFailed}, s.events); len(s.images) != 0 || diff != "" {
			t.Errorf("left %v, events: %s", s.left(), diff)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestRunBegins starts on a disk that is full, before all is known.
func TestRunBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := base(time.Now())
		s.synced, s.disk.Available = false, 0
		c := s.collector(t, Policy{High: policy, Low: policy})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		time.Sleep(every)
		synctest.Wait()
		if len(s.left()) != 4 {
			t.Errorf("before it is known what is wanted, left are %v", s.left())
		}
		s.change(func() { s.synced = true })
		time.Sleep(early)
		synctest.Wait()
		if diff := cmp.Diff([]string{"used"}, s.left()); diff != "" {
			t.Errorf("as soon as it is known (-want +got):\n%s", diff)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestMaximumAge(t *testing.T) {
	now := time.Now()
	s := base(now)
	s.disk.Available = 500 * mib
	c := s.collector(t, Policy{High: policy, Low: policy, MaxAge: 3 * time.Hour})
	s.wanted = []string{"recent"}
	_ = c.pass(t.Context(), now)
	if len(s.left()) != 4 {
		t.Errorf("before it has been watched for so long nothing has the age, but left are %v", s.left())
	}
	_ = c.pass(t.Context(), now.Add(2*time.Hour))
	s.wanted = nil
	_ = c.pass(t.Context(), now.Add(4*time.Hour))
	if diff := cmp.Diff([]string{"recent", "used"}, s.left()); diff != "" {
		t.Errorf("unused for longer than the age, and not what was used 2h ago (-want +got):\n%s", diff)
	}
	_ = c.pass(t.Context(), now.Add(6*time.Hour))
	if diff := cmp.Diff([]string{"used"}, s.left()); diff != "" {
		t.Errorf("its time comes too (-want +got):\n%s", diff)
	}
	_ = c.pass(t.Context(), now.Add(7*time.Hour))
	if _, known := c.last["recent"]; known {
		t.Error("images that are gone are not remembered for ever")
	}
}
