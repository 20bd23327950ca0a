package podsource

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSingleFile(t *testing.T) {
	b := newBench(t)
	dir := b.Path
	b.Path = filepath.Join(dir, "pod.yaml")
	b.start()
	b.want("it does not exist yet")
	b.must(os.WriteFile(filepath.Join(dir, "neighbour.yaml"), []byte(manifest("other", "x")), 0o644))
	b.must(os.WriteFile(b.Path, []byte(manifest("web", "one")), 0o644))
	b.await("web-n one")
	b.must(os.WriteFile(b.Path, []byte(manifest("web", "two")), 0o644))
	b.await("web-n two")
	if _, n := b.last(); n != 3 {
		t.Errorf("%d lists, want 3", n)
	}
}

func TestDirectoryThatComesLater(t *testing.T) {
	b := newBench(t)
	b.Path = filepath.Join(b.Path, "manifests")
	b.start()
	b.want("what does not exist is empty")
	b.must(os.Mkdir(b.Path, 0o755))
	b.write("web.yaml", manifest("web", "one"))
	b.await("web-n one")
	// It is replaced as a whole, as deployment tools do.
	b.must(os.Rename(b.Path, b.Path+".old"))
	b.must(os.Mkdir(b.Path, 0o755))
	b.write("web.yaml", manifest("web", "two"))
	b.await("web-n two")
	b.write("web.yaml", manifest("web", "three"))
	b.await("web-n three")
}

func TestMountedConfigMapLayout(t *testing.T) {
	b := newBench(t)
	for _, v := range []string{"1", "2"} {
		b.must(os.Mkdir(b.path("..v"+v), 0o755))
		b.must(os.WriteFile(b.path("..v"+v+"/web.yaml"), []byte(manifest("web", "v"+v)), 0o644))
	}
	b.must(os.Symlink("..v1", b.path("..data")))
	b.must(os.Symlink("..data/web.yaml", b.path("web.yaml")))
	b.start()
	b.want("links are followed", "web-n v1")
	b.must(os.Symlink("..v2", b.path("..tmp")))
	b.must(os.Rename(b.path("..tmp"), b.path("..data")))
	b.await("web-n v2")
}

func TestSameContentIsNoChange(t *testing.T) {
	b := newBench(t)
	b.write("web.yaml", manifest("web", "one"))
	b.start()
	b.must(os.Chtimes(b.path("web.yaml"), time.Now(), time.Now()))
	b.write("web.yaml", manifest("web", "one"))
	b.write("marker.yaml", manifest("marker", "one"))
	b.await("marker-n one", "web-n one")
	if _, n := b.last(); n != 2 {
		t.Errorf("%d lists, want 2: touching a file is no change", n)
	}
}

func TestIdentityOverRestarts(t *testing.T) {
	b := newBench(t)
	b.write("web.yaml", manifest("web", "one"))
	stop := b.start()
	first := b.pods[0]
	if first.Annotations[AnnotationSeen] == "" {
		t.Error("the pod was not marked as seen")
	}
	stop()
	b.start()
	second := b.pods[0]
	if second.UID != first.UID || second.Annotations[AnnotationHash] != first.Annotations[AnnotationHash] {
		t.Errorf("UID %s → %s, hash %s → %s", first.UID, second.UID, first.Annotations[AnnotationHash], second.Annotations[AnnotationHash])
	}
}

func TestKeptCopies(t *testing.T) {
	b := newBench(t)
	b.KeepDir = filepath.Join(t.TempDir(), "keep")
	b.write("web.yaml", manifest("web", "one"))
	b.write("gone.yaml", manifest("gone", "one"))
	stop := b.start()
	uid := b.pods[1].UID
	b.eventually("copies are written", func() bool { e, _ := os.ReadDir(b.KeepDir); return len(e) == 2 })
	stop()
	b.write("web.yaml", manifest("web", "'"))
	b.must(os.Remove(b.path("gone.yaml")))
	b.start()
	b.want("a file that broke while no agent ran keeps its pod", "web-n one")
	if b.pods[0].UID != uid || len(b.Problems()) != 1 {
		t.Errorf("UID %s, want %s; problems %v, want one", b.pods[0].UID, uid, b.Problems())
	}
	b.eventually("the copy of a file that is gone is dropped", func() bool { e, _ := os.ReadDir(b.KeepDir); return len(e) == 1 })
}

// TestLook walks through the decisions that depend on time.
func TestLook(t *testing.T) {
	b := newBench(t)
	b.write("web.yaml", manifest("web", "one"))
	s := newScan(b.Dir)
	now := time.Now()
	s.look(now)
	b.want("the first look", "web-n one")

	b.must(os.Rename(b.path("web.yaml"), b.path(".away")))
	if again := s.look(now); again != absence {
		t.Errorf("a missing file is looked for again after %s, want %s", again, absence)
	}
	b.want("it may come back", "web-n one")
	s.look(now.Add(absence))
	b.want("it does not come back")
	b.must(os.Rename(b.path(".away"), b.path("web.yaml")))
	now = time.Now()
	if again := s.look(now); again <= 0 || again > racy {
		t.Errorf("a young file is looked at again after %s, want at most %s", again, racy)
	}
	b.want("it is there again", "web-n one")
	now = now.Add(racy)
	if s.look(now); s.look(now) != 0 {
		t.Error("an old file needs no second look")
	}

	s.note([]change{{name: "web.yaml", mask: unix.IN_MODIFY}}, now)
	b.must(os.WriteFile(b.path("web.yaml"), []byte(manifest("web", "two")), 0o644))
	if again := s.look(now); again != writing {
		t.Errorf("a file being written is looked at again after %s, want %s", again, writing)
	}
	b.want("somebody writes to it", "web-n one")
	s.look(now.Add(writing))
	b.want("the writer says nothing more", "web-n two")

	b.must(os.Rename(b.Path, b.Path+".away"))
	s.look(now)
	s.look(now.Add(absence))
	b.want("a directory may be missing for longer", "web-n two")
	s.look(now.Add(absenceOfAll))
	b.want("a directory that stays away is empty")

	b.must(os.Rename(b.Path+".away", b.Path))
	now = now.Add(time.Minute)
	s.look(now)
	b.want("it is back", "web-n two")
	b.must(os.Rename(b.Path, b.Path+".away"))
	b.must(unix.Mkfifo(b.Path, 0o600))
	s.look(now)
	s.look(now.Add(time.Hour))
	b.want("what cannot be read ends nothing", "web-n two")
	if len(b.Problems()) != 1 || b.Problems()[0].File != b.Path {
		t.Errorf("problems %v, want one of the directory", b.Problems())
	}
	b.must(os.Remove(b.Path))
	b.must(os.Rename(b.Path+".away", b.Path))
}

func TestWithoutInotify(t *testing.T) {
	w := &watcher{}
	if err := w.follow(t.TempDir()); err != nil {
		t.Error(err)
	}
	begin := time.Now()
	if changes, err := w.wait(context.Background(), time.Millisecond); err != nil || changes != nil || time.Since(begin) < time.Millisecond {
		t.Errorf("got %v, %v", changes, err)
	}
	w.close()
}
