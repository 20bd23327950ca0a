package object

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// value is what the config map cfg of the base pod's namespace is said to hold.
func value(t *testing.T, s *Store, pod *corev1.Pod) string {
	t.Helper()
	cm, err := s.ConfigMap(t.Context(), pod, "cfg")
	if err != nil {
		t.Fatalf("config map: %v", err)
	}
	return cm.Data["key"]
}

func about(log []string, what string) []string {
	var out []string
	for _, l := range log {
		if strings.Contains(l, what) {
			out = append(out, l)
		}
	}
	return out
}

func TestOneObjectIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(configMapsOfShop, "cfg", configMap("1"))
		a.put(configMapsOfShop, "other", configMap("x"))
		s, woken := newStore(t, a)
		web, twin := basePod(withConfigMap("cfg")), basePod(withConfigMap("cfg"))
		twin.UID = "uid-twin"
		s.SetPods([]*corev1.Pod{web, twin})
		if got := value(t, s, web); got != "1" {
			t.Errorf("got %q, want the object as it is", got)
		}
		synctest.Wait()
		want := []string{"GET " + configMapsOfShop + " metadata.name=cfg", "WATCH " + configMapsOfShop + " metadata.name=cfg"}
		if diff := cmp.Diff(want, about(a.log(), configMapsOfShop)); diff != "" {
			t.Errorf("a node may list and watch one object at a time, and two pods share the watch (-want +got):\n%s", diff)
		}
		if got := woken.take(); got != nil {
			t.Errorf("woken: %v, though nobody has seen anything else", got)
		}

		a.put(configMapsOfShop, "other", configMap("y"))
		a.put(configMapsOfShop, "cfg", configMap("2"))
		if got := value(t, s, web); got != "2" {
			t.Errorf("got %q after a change", got)
		}
		if got := woken.take(); len(got) != 2 {
			t.Errorf("woken: %v, want both pods, once", got)
		}

		a.put(configMapsOfShop, "cfg", nil)
		if _, err := s.ConfigMap(t.Context(), web, "cfg"); !errors.Is(err, fs.ErrNotExist) || err.Error() != `configmap "cfg" not found` {
			t.Errorf("error is %v, want one that says that there is none", err)
		}

		s.SetPods([]*corev1.Pod{twin})
		synctest.Wait()
		if _, err := s.ConfigMap(t.Context(), web, "cfg"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error is %v for a pod that is not on the node", err)
		}
		a.log()
		ended := basePod(withConfigMap("cfg"))
		ended.UID, ended.Status.Phase = "uid-twin", corev1.PodSucceeded
		s.SetPods([]*corev1.Pod{ended})
		synctest.Wait()
		s.mu.Lock()
		left := len(s.watches)
		s.mu.Unlock()
		if left != 0 {
			t.Errorf("%d watches are left without a pod", left)
		}
	})
}

func TestRefusalIsNotDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(configMapsOfShop, "cfg", configMap("1"))
		bound := time.Now().Add(time.Second)
		a.refuse = func(*http.Request) int {
			if time.Now().Before(bound) {
				return http.StatusForbidden // no relationship found between node and this object
			}
			return 0
		}
		s, _ := newStore(t, a)
		pod := basePod(withConfigMap("cfg"))
		s.SetPods([]*corev1.Pod{pod})
		if got := value(t, s, pod); got != "1" {
			t.Errorf("got %q", got)
		}
		if waited := time.Since(bound); waited < 0 || waited > patience {
			t.Errorf("it was known %s after it could be", waited)
		}
	})
}

func TestUnknownIsNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.put(configMapsOfShop, "cfg", configMap("1"))
		a.down = true
		s, woken := newStore(t, a)
		pod := basePod(withConfigMap("cfg"))
		s.SetPods([]*corev1.Pod{pod})
		if _, err := s.ConfigMap(t.Context(), pod, "cfg"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"cfg"`) {
			t.Errorf("error is %v, want one that does not say that the object is missing", err)
		}
		time.Sleep(time.Minute)
		if tries := len(a.log()); tries > 30 {
			t.Errorf("an API server that is away was asked %d times in a minute", tries)
		}
		a.sever(false, nil)
		time.Sleep(longestTurn)
		synctest.Wait()
		if diff := cmp.Diff([]types.UID{pod.UID}, woken.take()); diff != "" {
			t.Errorf("who has asked in vain is to be woken (-want +got):\n%s", diff)
		}
		if got := value(t, s, pod); got != "1" {
			t.Errorf("got %q", got)
		}
	})
}

func TestOutage(t *testing.T) {
	cases := map[string]struct {
		reason string
		change func(a *api)
	}{
		"Away":    {"nothing answers for an hour", func(a *api) { a.sever(true, io.ErrUnexpectedEOF); time.Sleep(time.Hour) }},
		"Closed":  {"the watch ends in good order, as it does now and then", func(a *api) { a.sever(false, nil) }},
		"Expired": {"the version to go on from is too old", func(a *api) { a.expire() }},
		"Broken":  {"the API server is there and does not work", func(a *api) { a.fail(http.StatusInternalServerError, time.Hour) }},
		"Refused": {"and for a while it does not know that the pod is here", func(a *api) { a.fail(http.StatusForbidden, time.Hour) }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				a.put(configMapsOfShop, "cfg", configMap("1"))
				s, woken := newStore(t, a)
				pod := basePod(withConfigMap("cfg"))
				s.SetPods([]*corev1.Pod{pod})
				if got := value(t, s, pod); got != "1" {
					t.Fatalf("got %q before", got)
				}
				tc.change(a)
				if got := value(t, s, pod); got != "1" {
					t.Errorf("%s: got %q, want what was known last", tc.reason, got)
				}
				if got := woken.take(); got != nil {
					t.Errorf("%s: woken %v, though nothing has changed", tc.reason, got)
				}
				a.mu.Lock()
				a.down, a.refuse = false, nil
				a.mu.Unlock()
				time.Sleep(time.Minute)
				a.put(configMapsOfShop, "cfg", configMap("2"))
				if got := value(t, s, pod); got != "2" {
					t.Errorf("%s: got %q, want it to catch up", tc.reason, got)
				}
				if diff := cmp.Diff([]types.UID{pod.UID}, woken.take()); diff != "" {
					t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
				}
			})
		})
	}
}

// expire tells every watch that its version is too old.
func (a *api) expire() {
	a.mu.Lock()
	var all []*stream
	for s := range a.streams {
		all = append(all, s)
	}
	a.mu.Unlock()
	for _, s := range all {
		s.send("ERROR", map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410})
	}
	a.sever(false, nil)
}

// fail answers everything with code for a while.
func (a *api) fail(code int, d time.Duration) {
	a.mu.Lock()
	a.refuse = func(*http.Request) int { return code }
	a.mu.Unlock()
	a.sever(false, io.ErrUnexpectedEOF)
	time.Sleep(d)
}

func TestImmutableIsNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		fixed := configMap("1")
		fixed["immutable"] = true
		a.put(configMapsOfShop, "cfg", fixed)
		s, _ := newStore(t, a)
		pod := basePod(withConfigMap("cfg"))
		s.SetPods([]*corev1.Pod{pod})
		value(t, s, pod)
		synctest.Wait()
		if got := about(a.log(), "WATCH "+configMapsOfShop); got != nil {
			t.Errorf("what cannot change is watched: %v", got)
		}
		a.put(configMapsOfShop, "cfg", nil)
		a.put(configMapsOfShop, "cfg", configMap("2"))
		twin := basePod(withConfigMap("cfg"))
		twin.UID = "uid-twin"
		s.SetPods([]*corev1.Pod{pod, twin})
		synctest.Wait()
		if got := value(t, s, twin); got != "2" {
			t.Errorf("a new pod sees %q, want the object that has taken the place of the other", got)
		}
	})
}
