package object

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// kept is how many files there are.
func kept(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return len(entries)
}

// TestNewAgentWithoutServer is killed, and started again while the API server is away.
func TestNewAgentWithoutServer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(configMapsOfShop, "cfg", configMap("1"))
		pod := basePod(withConfigMap("cfg"))
		ctx, kill := context.WithCancel(t.Context())
		s, _ := newStoreIn(t, ctx, a, dir)
		s.SetPods([]*corev1.Pod{pod})
		value(t, s, pod)
		synctest.Wait() // for the watch
		a.put(configMapsOfShop, "cfg", configMap("2"))
		kill()
		synctest.Wait()

		a.sever(true, nil)
		s, woken := newStoreIn(t, t.Context(), a, dir)
		gone := basePod(withConfigMap("cfg"))
		s.SetPods([]*corev1.Pod{pod})
		begin := time.Now()
		if got := value(t, s, pod); got != "2" || time.Since(begin) > keptPatience {
			t.Errorf("got %q after %s, want what was known last, soon", got, time.Since(begin))
		}
		if _, err := s.Services(t.Context(), pod); err != nil {
			t.Errorf("services: %v", err)
		}
		a.mu.Lock()
		a.objects[configMapsOfShop] = map[string]any{}
		a.mu.Unlock()
		a.put(configMapsOfShop, "cfg", configMap("3"))
		a.sever(false, nil)
		time.Sleep(longestTurn)
		synctest.Wait()
		if got := value(t, s, pod); got != "3" {
			t.Errorf("got %q once the API server is back", got)
		}
		if got := woken.take(); !cmp.Equal(got, []types.UID{pod.UID, pod.UID}) { // for the config map and the services
			t.Errorf("woken %v, want who has seen the old state", got)
		}
		gone.Status.Phase = corev1.PodFailed
		s.SetPods([]*corev1.Pod{gone})
		synctest.Wait()
		if got := kept(t, dir); got != 0 {
			t.Errorf("%d files are kept for no pod", got)
		}
	})
}

func TestKeeper(t *testing.T) {
	k := keeper{dir: t.TempDir()}
	disk := k.dir
	one, pw := named(configMaps, "shop", "one"), named(secrets, "shop", "pw")
	k.log = discard()
	secret := &corev1.Secret{Data: map[string][]byte{"a": []byte("b")}}
	secret.Name = "pw"
	k.save(pw, items(secret))
	if got := k.load(pw); (got == nil) == inMemory(disk) {
		t.Errorf("in memory: %v, secret kept: %v", inMemory(disk), got)
	}
	cm := &corev1.ConfigMap{Data: map[string]string{"a": "b"}}
	cm.Name = "one"
	k.save(one, items(cm))
	if diff := cmp.Diff(items(cm), k.load(one)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := os.WriteFile(k.path(one), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := k.load(one); got != nil {
		t.Errorf("a file that is broken is %v", got)
	}
	k.tidy([]key{pw})
	if got := k.load(one); got != nil || kept(t, disk) > 1 {
		t.Errorf("what nobody wants is still there")
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func items(o metav1.Object) map[string]metav1.Object {
	return map[string]metav1.Object{o.GetName(): o}
}
