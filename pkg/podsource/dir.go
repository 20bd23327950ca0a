package podsource

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Objects are what pods of the directory may refer to.
type Objects struct {
	ConfigMaps map[types.NamespacedName]*corev1.ConfigMap
	Secrets    map[types.NamespacedName]*corev1.Secret
}

// Update is told the full list, once at the start and then each time something
// has changed. Pods and objects must not be changed; those of files that stayed
// as they were are the same pointers as before.
type Update func(pods []*corev1.Pod, objects Objects)

// Dir reads static pods from a directory or a single file.
//
// Every file counts whose name neither begins with a dot nor is that of an
// editor's backup (web.yaml~, #web.yaml#); sub-directories do not. Files are
// taken whole, in the order of their names: where two hold the same pod or
// object, the later one wins, and that is a problem of the earlier one.
//
// A file with a problem keeps what it had when it was last good; only its removal
// ends its pods. A path that does not exist is an empty directory, and an empty
// path one that stays so.
type Dir struct {
	Path     string
	NodeName string
	// RescanEvery is how often everything is looked at, should an event have been
	// lost; 0 is the kubelet's 20 s. Files that did not change are not read again.
	RescanEvery time.Duration
	// KeepDir, if set, holds a copy of each file as it was when last good, so that
	// an agent that is started while a file is broken keeps the file's pods too.
	KeepDir string
	Emit    Update
	// OnError, if set, is told each problem once, when it appears; otherwise it is
	// logged.
	OnError func(Problem)
	Log     *slog.Logger

	mu       sync.Mutex // guards problems
	problems []Problem
}

// Problems are what is wrong now, in the order of files and lines.
func (d *Dir) Problems() []Problem {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.problems)
}

// Run reads the directory and follows its changes until ctx ends. Events of the
// file system are a hint to look; what is found is the truth.
func (d *Dir) Run(ctx context.Context) error {
	if d.Path == "" {
		d.Emit(nil, Objects{})
		<-ctx.Done()
		return nil
	}
	every := d.RescanEvery
	if every <= 0 {
		every = 20 * time.Second
	}
	w, err := newWatcher()
	if err != nil {
		// Too few inotify instances are no reason to run no pods.
		d.Log.Warn("manifests are only looked at now and then", "every", every, "err", err)
		w = &watcher{}
	}
	defer w.close()
	s := newScan(d)
	for {
		if err := w.follow(d.Path); err != nil {
			d.Log.Debug("manifest directory is not watched", "path", d.Path, "err", err)
		}
		again := s.look(time.Now())
		if again == 0 || again > every {
			again = every
		}
		changes, err := w.wait(ctx, again)
		if err != nil {
			return nil
		}
		s.note(changes, time.Now())
	}
}

// report replaces the list of problems and tells the new ones.
func (d *Dir) report(problems []Problem) {
	d.mu.Lock()
	known := map[string]bool{}
	for _, p := range d.problems {
		known[p.Error()] = true
	}
	d.problems = problems
	d.mu.Unlock()
	for _, p := range problems {
		switch {
		case known[p.Error()]:
		case d.OnError != nil:
			d.OnError(p)
		default:
			d.Log.Error("manifest not used", "file", p.File, "line", p.Line, "pod", p.Pod, "err", p.Err)
		}
	}
}
