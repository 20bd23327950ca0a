package podsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxFile is how large a manifest may be, in bytes.
const maxFile = 10 << 20

// retryWatch is how soon a directory that could not be watched is tried again.
const retryWatch = time.Second

// Objects are what pods of the directory may refer to.
type Objects struct {
	ConfigMaps map[types.NamespacedName]*corev1.ConfigMap
	Secrets    map[types.NamespacedName]*corev1.Secret
}

// Update is told the full list, each time something may have changed. The pods
// and objects must not be changed.
type Update func(pods []*corev1.Pod, objects Objects)

// Dir reads static pods from a directory or a single file.
type Dir struct {
	Path, NodeName string
	// RescanEvery is how often everything is read, should an event be lost.
	RescanEvery time.Duration
	Emit        Update
	Log         *slog.Logger

	files map[string]*file // by path; only Run touches it

	mu       sync.Mutex // guards problems
	problems []Problem
}

// file is what is known of one manifest.
type file struct {
	stamp    string
	parsed   Parsed // the last that was good
	problems []Problem
}

// Problems are what is wrong now, ordered by file.
func (d *Dir) Problems() []Problem {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.problems)
}

// Run reads the directory and follows its changes until ctx ends. Events are a
// hint to look; what is found is the truth. The first list is emitted even when
// the directory does not exist.
func (d *Dir) Run(ctx context.Context) error {
	d.files = map[string]*file{}
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch manifests: %w", err)
	}
	defer watch.Close()
	watched := watch.Add(d.Path) == nil
	d.rescan()
	for {
		wait := d.RescanEvery
		if !watched {
			wait = min(wait, retryWatch)
		}
		select {
		case <-ctx.Done():
			return nil
		case e := <-watch.Events:
			if e.Name == d.Path && e.Has(fsnotify.Remove|fsnotify.Rename) {
				watched = false // the watch went with the directory
			}
			drain(watch.Events)
		case err := <-watch.Errors:
			d.Log.Debug("watch of manifests", "err", err)
		case <-time.After(wait):
		}
		if !watched {
			watched = watch.Add(d.Path) == nil
		}
		d.rescan()
	}
}

// drain takes the events that are there already: one look serves them all.
func drain(events <-chan fsnotify.Event) {
	for {
		select {
		case <-events:
		default:
			return
		}
	}
}

// rescan looks at every file and emits the list if something has changed.
func (d *Dir) rescan() {
	paths, scanErr := d.list()
	if scanErr != nil {
		d.report(append(d.current(), Problem{File: d.Path, Err: scanErr}))
		return // nothing is ended because a directory cannot be read
	}
	changed := len(paths) != len(d.files)
	next := map[string]*file{}
	for _, p := range paths {
		f, again := d.look(p)
		next[p] = f
		changed = changed || again
	}
	for p := range d.files {
		changed = changed || next[p] == nil
	}
	first := d.problems == nil
	d.files = next
	if changed || first {
		d.emit()
	}
}

// list names the files that count, in order.
func (d *Dir) list() ([]string, error) {
	info, err := os.Stat(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{d.Path}, nil
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
			out = append(out, filepath.Join(d.Path, e.Name()))
		}
	}
	return out, nil
}

// look reads a file unless it is as it was. One that cannot be read or parsed
// keeps what it had.
func (d *Dir) look(path string) (f *file, changed bool) {
	old := d.files[path]
	data, stamp, err := read(path, old)
	if err == nil && data == nil {
		return old, false
	}
	if err != nil {
		text := err.Error()
		if old != nil && old.stamp == text {
			return old, false
		}
		f = &file{stamp: text, problems: []Problem{{File: path, Err: err}}}
	} else {
		f = &file{stamp: stamp}
		f.parsed, f.problems = ParseFile(path, data, d.NodeName)
	}
	if len(f.problems) > 0 && old != nil {
		f.parsed = old.parsed
	}
	for _, p := range f.problems {
		d.Log.Error("manifest not used", "file", p.File, "line", p.Line, "err", p.Err)
	}
	return f, true
}

// read returns a file's content and a stamp of its state, or nothing when the
// state is what old has.
func read(path string, old *file) (data []byte, stamp string, err error) {
	// Not blocking: a FIFO must not stop us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, "", err
	case info.IsDir():
		return nil, "", errors.New("is a directory: manifests are read from the top level only")
	case !info.Mode().IsRegular():
		return nil, "", errors.New("is not a regular file")
	case info.Size() > maxFile:
		return nil, "", fmt.Errorf("has %d bytes: a manifest may have %d", info.Size(), maxFile)
	}
	stamp = fmt.Sprint(info.Size(), " ", info.ModTime().UnixNano(), " ", inode(info))
	if old != nil && old.stamp == stamp {
		return nil, stamp, nil
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if data == nil {
		data = []byte{}
	}
	return data, stamp, err
}

// emit tells the full list. Where two files hold one pod or object, the later
// file wins, and that is a problem of the earlier one.
func (d *Dir) emit() {
	pods := map[string]*corev1.Pod{}
	objects := Objects{ConfigMaps: map[types.NamespacedName]*corev1.ConfigMap{}, Secrets: map[types.NamespacedName]*corev1.Secret{}}
	from := map[string]string{}
	problems := d.current()
	claim := func(path, what, namespace, name string) {
		key := what + " " + namespace + "/" + name
		if earlier, taken := from[key]; taken {
			problems = append(problems, Problem{File: earlier, Pod: name, Err: fmt.Errorf("%s is also in %s, which is used", key, path)})
		}
		from[key] = path
	}
	paths := make([]string, 0, len(d.files))
	for p := range d.files {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, path := range paths {
		parsed := d.files[path].parsed
		for _, pod := range parsed.Pods {
			claim(path, "Pod", pod.Namespace, pod.Name)
			pods[pod.Namespace+"/"+pod.Name] = pod
		}
		for _, cm := range parsed.ConfigMaps {
			claim(path, "ConfigMap", cm.Namespace, cm.Name)
			objects.ConfigMaps[types.NamespacedName{Namespace: cm.Namespace, Name: cm.Name}] = cm
		}
		for _, s := range parsed.Secrets {
			claim(path, "Secret", s.Namespace, s.Name)
			objects.Secrets[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
		}
	}
	list := make([]*corev1.Pod, 0, len(pods))
	for _, p := range pods {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	d.report(problems)
	d.Emit(list, objects)
}

// current collects the problems of all files.
func (d *Dir) current() []Problem {
	out := []Problem{}
	for _, f := range d.files {
		out = append(out, f.problems...)
	}
	return out
}

func (d *Dir) report(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.File, b.File) })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problems = problems
}

// inode tells a file from one that has replaced it.
func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
