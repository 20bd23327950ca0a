package podsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// bench is a Dir with all that it has emitted.
type bench struct {
	*Dir
	t *testing.T

	mu    sync.Mutex // guards all below
	lists [][]string // names and images of the pods
	pods  []*corev1.Pod
	objs  Objects
	told  []string
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t}
	b.Dir = &Dir{Path: t.TempDir(), NodeName: "n", RescanEvery: time.Minute, Log: slog.New(slog.DiscardHandler)}
	b.Emit = func(pods []*corev1.Pod, objects Objects) {
		b.mu.Lock()
		defer b.mu.Unlock()
		var names []string
		for _, p := range pods {
			names = append(names, p.Name+" "+p.Spec.Containers[0].Image)
		}
		b.lists, b.pods, b.objs = append(b.lists, names), pods, objects
	}
	b.OnError = func(p Problem) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, filepath.Base(p.File))
	}
	return b
}

func manifest(name, image string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  containers:\n  - {name: c, image: %s}\n", name, image)
}

func (b *bench) path(name string) string { return filepath.Join(b.Path, name) }

// write replaces a file as a careful program would.
func (b *bench) write(name, text string) {
	b.t.Helper()
	tmp := b.path("." + name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.must(os.Rename(tmp, b.path(name)))
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// last is the newest list, and how many there were.
func (b *bench) last() ([]string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lists) == 0 {
		return nil, 0
	}
	return b.lists[len(b.lists)-1], len(b.lists)
}

func (b *bench) want(reason string, names ...string) {
	b.t.Helper()
	got, n := b.last()
	if n == 0 || !slices.Equal(got, names) {
		b.t.Errorf("%s: after %d lists got %v, want %v", reason, n, got, names)
	}
}

// start runs the Dir until the test ends or stop is called.
func (b *bench) start() (stop func()) {
	_, before := b.last()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(stop)
	b.eventually("the first list", func() bool { _, n := b.last(); return n > before })
	return stop
}

func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	got, n := b.last()
	b.t.Fatalf("%s: still not so; after %d lists: %v, problems %v", what, n, got, b.Problems())
}

func (b *bench) await(names ...string) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("list %v", names), func() bool { got, n := b.last(); return n > 0 && slices.Equal(got, names) })
}

func TestFollowsChanges(t *testing.T) {
	b := newBench(t)
	b.start()
	b.want("an empty directory is a full list too")
	b.write("web.yaml", manifest("web", "one"))
	b.await("web-n one")
	b.write("web.yaml", manifest("web", "two"))
	b.await("web-n two")
	b.must(os.WriteFile(b.path("db.yaml"), []byte(manifest("db", "one")), 0o644))
	b.await("db-n one", "web-n two")
	b.must(os.Remove(b.path("web.yaml")))
	b.await("db-n one")
	b.must(os.Symlink(b.path("db.yaml"), b.path("a-link.yaml")))
	b.eventually("the link is read", func() bool { return len(b.Problems()) == 1 })
	b.want("the later file wins", "db-n one")
}

// No rescan comes to help here; how soon a change is seen is in the benchmark.
func TestSeenByEventsAlone(t *testing.T) {
	b := newBench(t)
	b.RescanEvery = 24 * time.Hour
	b.start()
	for i := range 5 {
		image := fmt.Sprintf("v%d", i)
		b.write("web.yaml", manifest("web", image))
		b.await("web-n " + image)
	}
}

func TestHalfAFileIsNotRead(t *testing.T) {
	b := newBench(t)
	b.write("web.yaml", manifest("web", "one"))
	b.start()
	for _, name := range []string{"web.yaml", "new.yaml"} {
		pod := strings.TrimSuffix(name, ".yaml")
		f, err := os.Create(b.path(name))
		b.must(err)
		_, err = f.WriteString(manifest(pod, "two")) // good as it is, and not all
		b.must(err)
		b.write("other.yaml", manifest("other", pod)) // another file's event makes it look
		b.eventually("other pod", func() bool { got, _ := b.last(); return slices.Contains(got, "other-n "+pod) })
		if got, _ := b.last(); slices.Contains(got, pod+"-n two") {
			t.Errorf("half of %s was taken: %v", name, got)
		}
		_, err = f.WriteString("  - {name: d, image: two}\n")
		b.must(err)
		b.must(f.Close())
		b.eventually("the whole of "+name, func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return slices.ContainsFunc(b.pods, func(p *corev1.Pod) bool { return p.Name == pod+"-n" && len(p.Spec.Containers) == 2 })
		})
	}
}

func TestEditorsThatMoveTheFileAway(t *testing.T) {
	b := newBench(t)
	b.write("web.yaml", manifest("web", "one"))
	b.start()
	for i := range 3 {
		b.must(os.Rename(b.path("web.yaml"), b.path("web.yaml~")))
		time.Sleep(5 * time.Millisecond) // it is noticed that the file is missing
		b.must(os.WriteFile(b.path("web.yaml"), []byte(manifest("web", fmt.Sprint("v", i))), 0o644))
		b.await(fmt.Sprint("web-n v", i))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, list := range b.lists {
		if len(list) != 1 {
			t.Errorf("the pod was taken away during an edit: %v", b.lists)
			break
		}
	}
}

func TestBrokenFileKeepsItsPods(t *testing.T) {
	b := newBench(t)
	b.write("web.yaml", manifest("web", "one")+"---\n"+manifest("db", "one"))
	b.write("other.yaml", manifest("other", "one"))
	b.start()
	before := b.pods
	b.write("web.yaml", manifest("web", "two")+"---\n"+manifest("db", "'"))
	b.eventually("the problem is reported", func() bool { return len(b.Problems()) == 1 })
	if p := b.Problems()[0]; p.File != b.path("web.yaml") || p.Line == 0 {
		t.Errorf("problem %v, want file and line", p)
	}
	b.want("a file is taken whole or not at all", "db-n one", "other-n one", "web-n one")
	b.write("other.yaml", manifest("other", "two"))
	b.await("db-n one", "other-n two", "web-n one")
	b.write("web.yaml", manifest("web", "one")+"---\n"+manifest("db", "one"))
	b.eventually("the problem is gone", func() bool { return len(b.Problems()) == 0 })
	for _, i := range []int{0, 2} {
		if b.pods[i] != before[i] {
			t.Errorf("mending the file made another pod of %s", before[i].Name)
		}
	}
	b.write("web.yaml", "")
	b.eventually("an empty file is a problem", func() bool { return len(b.Problems()) == 1 })
	b.want("truncating is not removing", "db-n one", "other-n two", "web-n one")
	b.must(os.Remove(b.path("web.yaml")))
	b.await("other-n two")
	if len(b.Problems()) != 0 {
		t.Errorf("problems of a file that is gone: %v", b.Problems())
	}
}

func TestStrangeFilesDisturbNobody(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.path("sub"), 0o755))
	b.must(os.WriteFile(b.path("sub/x.yaml"), []byte(manifest("x", "x")), 0o644))
	b.must(unix.Mkfifo(b.path("fifo"), 0o600))
	b.must(os.Symlink("loop", b.path("loop")))
	b.must(os.Symlink("nowhere", b.path("dangling")))
	b.must(os.Symlink("/dev/zero", b.path("device")))
	b.must(os.WriteFile(b.path("README"), []byte("Read me.\n"), 0o644))
	b.must(os.WriteFile(b.path(".hidden.yaml"), []byte("}"), 0o644))
	b.must(os.WriteFile(b.path("web.yaml~"), []byte(manifest("web", "old")), 0o644))
	b.must(os.WriteFile(b.path("#web.yaml#"), []byte(manifest("web", "old")), 0o644))
	b.must(os.WriteFile(b.path("huge"), bytes.Repeat([]byte("#"), maxFile+1), 0o644))
	l, err := net.Listen("unix", b.path("socket"))
	b.must(err)
	defer l.Close()
	b.write("web.yaml", manifest("web", "one"))
	b.start()
	b.want("the good file counts", "web-n one")
	b.mu.Lock()
	defer b.mu.Unlock()
	want := []string{"README", "dangling", "device", "fifo", "huge", "loop", "socket", "sub"}
	if diff := cmp.Diff(want, b.told); diff != "" {
		t.Errorf("reported files, -want +got:\n%s", diff)
	}
	// A writer that does not wait gets ENXIO while nobody has opened the FIFO.
	if f, err := os.OpenFile(b.path("fifo"), os.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.ENXIO) {
		_ = f.Close() // it should not be open at all
		t.Errorf("the FIFO was opened: %v", err)
	}
}

func TestDuplicates(t *testing.T) {
	b := newBench(t)
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {from: %s}\n"
	b.write("a.yaml", "# first\n"+manifest("web", "a")+"---\n"+fmt.Sprintf(secret, "a"))
	b.write("b.yaml", manifest("web", "b")+"---\n"+fmt.Sprintf(secret, "b")+"---\n"+strings.Replace(manifest("x", "b"), "name: x", "name: x, uid: u", 1))
	b.write("c.yaml", strings.Replace(manifest("y", "c"), "name: y", "name: y, uid: u", 1))
	b.start()
	b.want("the later file wins", "web-n b", "y-n c")
	if got := string(b.objs.Secrets[types.NamespacedName{Namespace: "default", Name: "s"}].Data["from"]); got != "b" {
		t.Errorf("secret of %q, want b", got)
	}
	var got []string
	for _, p := range b.Problems() {
		got = append(got, strings.ReplaceAll(p.Error(), b.Path, ""))
	}
	want := []string{
		"/a.yaml:2: pod default/web-n: Pod default/web-n is also in /b.yaml, which is used because it comes later",
		"/a.yaml:9: Secret default/s is also in /b.yaml, which is used because it comes later",
		"/b.yaml:13: pod default/x-n: UID u is also in /c.yaml, which is used because it comes later",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems, -want +got:\n%s", diff)
	}
	b.must(os.Remove(b.path("b.yaml")))
	b.await("web-n a", "y-n c")
	if len(b.Problems()) != 0 {
		t.Errorf("problems: %v", b.Problems())
	}
}
