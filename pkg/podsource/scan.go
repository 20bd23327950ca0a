package podsource

import (
	"crypto/sha256"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// absence is how long a file must be missing before its pods end: editors
	// move a file away and then write it anew.
	absence = 50 * time.Millisecond
	// absenceOfAll is the same for the directory as a whole.
	absenceOfAll = 2 * time.Second
	// creating and writing are how long to wait for somebody who has created a file,
	// or written to it, and says nothing more.
	creating = 100 * time.Millisecond
	writing  = 2 * time.Second
	// unsettled is how soon a file is looked at again that changed while it was read.
	unsettled = 20 * time.Millisecond
	// racy is the age below which a stamp may not show the next change: times of
	// some file systems count in seconds.
	racy = 2 * time.Second
)

// entry is what is known of one file.
type entry struct {
	stamp     stamp
	read      time.Time // when stamp was first read
	confirmed bool      // stamp was old enough, when read, to be trusted
	sum       [sha256.Size]byte
	good      Parsed // as it was when it last had no problem
	problems  []Problem
	missing   time.Time // since when, if it is
}

// scan is the state of one Run.
type scan struct {
	dir     *Dir
	keep    keeper
	files   map[string]*entry    // by path
	writers map[string]time.Time // until when to wait for somebody who writes, by name
	touched map[string]bool      // names of files to read whatever their stamp says
	seen    map[types.UID]string // value of AnnotationSeen
	save    map[string][]byte    // copies to keep, by path
	emitted bool
	absent  bool // the path did not exist
}

func newScan(d *Dir) *scan {
	return &scan{
		dir: d, keep: keeper{d.KeepDir}, files: map[string]*entry{}, writers: map[string]time.Time{},
		touched: map[string]bool{}, seen: map[types.UID]string{}, save: map[string][]byte{},
	}
}

// note takes in what the watcher saw.
func (s *scan) note(changes []change, now time.Time) {
	for _, c := range changes {
		switch {
		case c.mask&unix.IN_Q_OVERFLOW != 0:
			clear(s.writers)
		case c.mask&(complete|gone) != 0:
			delete(s.writers, c.name)
			s.touched[c.name] = true
		case c.mask&unix.IN_MODIFY != 0:
			s.writers[c.name] = now.Add(writing)
		case c.mask&unix.IN_CREATE != 0:
			s.writers[c.name] = now.Add(creating)
		}
	}
}

// look brings the state up to date with the directory, hands on what has changed
// and says when to look again at the latest; 0 is whenever.
func (s *scan) look(now time.Time) time.Duration {
	paths, exists, err := list(s.dir.Path)
	if err != nil {
		// Nothing ends because a directory cannot be read.
		s.dir.report(append(s.problems(), Problem{File: s.dir.Path, Err: unwrapPath(err)}))
		return time.Second
	}
	if s.absent != !exists {
		s.absent = !exists
		s.dir.Log.Info("manifest directory", "path", s.dir.Path, "exists", exists)
	}
	next := &soonest{}
	changed := !s.emitted
	present := map[string]bool{}
	for _, path := range paths {
		f, known := s.files[path]
		if !known {
			f = &entry{}
		}
		has, there := s.examine(path, f, !known, now, next)
		if there {
			f.missing = time.Time{}
			s.files[path], present[path] = f, true
			changed = changed || has
		}
	}
	clear(s.touched)
	maps.DeleteFunc(s.writers, func(_ string, until time.Time) bool { return until.Before(now) })
	changed = s.removeMissing(present, exists, now, next) || changed
	duplicates := s.merge(changed)
	s.dir.report(sorted(append(s.problems(), duplicates...)))
	s.keepCopies(changed)
	return next.wait
}

// soonest is the shortest of several waits.
type soonest struct{ wait time.Duration }

func (s *soonest) in(d time.Duration) {
	if d = max(d, time.Millisecond); s.wait == 0 || d < s.wait {
		s.wait = d
	}
}

// removeMissing forgets files that have been gone for a while.
func (s *scan) removeMissing(present map[string]bool, exists bool, now time.Time, next *soonest) (changed bool) {
	grace := absence
	if !exists {
		grace = absenceOfAll
	}
	for path, f := range s.files {
		if present[path] {
			continue
		}
		if f.missing.IsZero() {
			f.missing = now
		}
		if left := grace - now.Sub(f.missing); left > 0 {
			next.in(left)
			continue
		}
		delete(s.files, path)
		changed = true
	}
	return changed
}

// examine reads a file if it may have changed. A file that cannot be read or has
// problems keeps what it had.
func (s *scan) examine(path string, f *entry, first bool, now time.Time, next *soonest) (changed, there bool) {
	st, err := stat(path)
	if errors.Is(err, errGone) {
		return false, false
	}
	if err != nil {
		s.broken(path, f, first, Problem{File: path, Err: err})
		return first, true
	}
	if !s.mayDiffer(path, f, st, now, next) {
		return false, true
	}
	if until, busy := s.writers[filepath.Base(path)]; busy && s.emitted && until.After(now) && !bornComplete(path) {
		next.in(until.Sub(now))
		return false, !first // a new file is not there before it is complete
	}
	data, after, err := read(path)
	switch {
	case errors.Is(err, errGone):
		return false, false
	case err != nil:
		s.broken(path, f, first, Problem{File: path, Err: err})
		return first, true
	case after != st:
		next.in(unsettled)
		if s.emitted {
			return false, !first
		}
	}
	changed = s.take(path, f, first, data, after, now)
	if !f.confirmed {
		next.in(racy)
	}
	return changed, true
}

// mayDiffer says whether a file of this stamp may be another than was read.
func (s *scan) mayDiffer(path string, f *entry, st stamp, now time.Time, next *soonest) bool {
	if st != f.stamp || s.touched[filepath.Base(path)] {
		return true
	}
	if f.confirmed {
		return false
	}
	if left := racy - now.Sub(f.read); left > 0 {
		next.in(left)
		return false
	}
	return true
}

// take makes a file's content count, if it is good.
func (s *scan) take(path string, f *entry, first bool, data []byte, st stamp, now time.Time) (changed bool) {
	sum := sha256.Sum256(data)
	if f.stamp != st {
		f.stamp, f.read = st, now
	}
	f.confirmed = now.Sub(f.read) >= racy || now.Sub(st.when) > racy
	if !first && sum == f.sum {
		return false
	}
	parsed, problems := ParseFile(path, data, s.dir.NodeName)
	if len(problems) > 0 {
		s.broken(path, f, first, problems...)
		f.stamp, f.sum = st, sum
		return first
	}
	f.good, f.problems, f.sum = s.unchanged(f.good, parsed), nil, sum
	s.save[path] = data
	return true
}

// broken notes what is wrong with a file. If this agent has never seen it good,
// an earlier one may have.
func (s *scan) broken(path string, f *entry, first bool, problems ...Problem) {
	f.problems = problems
	f.stamp, f.sum = stamp{}, [sha256.Size]byte{}
	if !first {
		return
	}
	if data := s.keep.load(path); data != nil {
		if parsed, problems := ParseFile(path, data, s.dir.NodeName); len(problems) == 0 {
			f.good = parsed
		}
	}
}

// unchanged keeps pods that are what they were, for whoever compares pointers.
func (s *scan) unchanged(old, parsed Parsed) Parsed {
	for i, pod := range parsed.Pods {
		for _, o := range old.Pods {
			if o.UID == pod.UID && o.Name == pod.Name && o.Namespace == pod.Namespace && o.Annotations[AnnotationHash] == pod.Annotations[AnnotationHash] {
				parsed.lines[o] = parsed.lines[pod]
				parsed.Pods[i] = o
			}
		}
	}
	return parsed
}

func (s *scan) problems() []Problem {
	out := []Problem{}
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		out = append(out, s.files[path].problems...)
	}
	return out
}

func sorted(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.File, b.File) })
	return problems
}

func (s *scan) keepCopies(changed bool) {
	for path, data := range s.save {
		if err := s.keep.save(path, data); err != nil {
			s.dir.Log.Warn("a manifest that breaks while no agent runs will lose its pods", "file", path, "err", err)
		}
	}
	clear(s.save)
	if changed {
		if err := s.keep.prune(s.files); err != nil {
			s.dir.Log.Debug("copies of manifests", "err", err)
		}
	}
}
