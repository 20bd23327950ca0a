package podsync

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestEvictionIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		a := n.run(t, dir)
		a.want(basePod())
		a.desired.Evict("uid-web", "Evicted", "The node was low on resource: memory.")
		synctest.Wait()
		s, _ := a.pool.Status("uid-web")
		if s.Phase != corev1.PodFailed || s.Reason != "Evicted" || a.container("main").State != cri.Exited {
			t.Errorf("an evicted pod has failed, got %+v", s)
		}
		a.end()
		n.log()
		a = n.run(t, dir)
		defer a.end()
		a.want(basePod())
		if s, _ := a.pool.Status("uid-web"); s.Phase != corev1.PodFailed || s.Reason != "Evicted" {
			t.Errorf("also for the next agent, got %+v", s)
		}
		if slices.Contains(n.log(), "start main 1") {
			t.Error("and is not started again")
		}
	})
}

// turns counts how much of a kind goes on at once.
type turns struct {
	mu        sync.Mutex // guards all below
	now, most map[string]int
}

// take is a slow step of the runtime.
func (c *turns) take(verb string, _ ...any) error {
	c.add(verb, 1)
	time.Sleep(time.Second)
	c.add(verb, -1)
	return nil
}

func (c *turns) add(verb string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now[verb] += n
	c.most[verb] = max(c.most[verb], c.now[verb])
}

func TestWhatIsSlowTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &turns{now: map[string]int{}, most: map[string]int{}}
		n := newNode()
		n.Before = c.take
		a := n.run(t, t.TempDir())
		defer a.end()
		var pods []*corev1.Pod
		for i := range 5 * cap(a.pool.cfg.stops) {
			pod := basePod()
			pod.Name = fmt.Sprintf("p%d", i)
			pod.UID = types.UID(pod.Name)
			pods = append(pods, pod)
		}
		a.want(pods...)
		time.Sleep(time.Minute)
		a.want()
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, verb := range []string{"sandbox", "start", "stop-sandbox"} {
			if c.most[verb] != cap(a.pool.cfg.stops) {
				t.Errorf("%s: as many at once as there are turns, not %d", verb, c.most[verb])
			}
		}
	})
}

func TestRestartInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		n.log()
		if err := a.pool.Restart("uid-web", "main"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		check(t, "the container is replaced, the sandbox stays", []string{"stop main 30s", "pull busybox:1", "start main 1"}, n.log())
		s, _ := a.pool.Status("uid-web")
		last := s.ContainerStatuses[0].LastTerminationState.Terminated
		if last == nil || last.Reason != ReasonRequested || s.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("the restart is counted, with its reason, got %+v", s.ContainerStatuses[0])
		}
		if err := a.pool.Restart("uid-nope", ""); !errors.Is(err, ErrUnknownPod) {
			t.Errorf("want %v, got %v", ErrUnknownPod, err)
		}
		if err := a.pool.Restart("uid-web", "nope"); !errors.Is(err, ErrNoContainer) {
			t.Errorf("want %v, got %v", ErrNoContainer, err)
		}
	})
}

func TestGraceOnlyShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(time.Hour, 0)
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		a.want(pod)
		n.log()
		deleted := pod.DeepCopy()
		deleted.DeletionTimestamp = new(metav1.Now())
		deleted.DeletionGracePeriodSeconds = new(int64(20))
		a.want(deleted)
		time.Sleep(5 * time.Second)
		sooner := deleted.DeepCopy()
		sooner.DeletionGracePeriodSeconds = new(int64(1))
		a.want(sooner)
		check(t, "a shorter grace period replaces a longer one at once", []string{"stop main 20s", "stop main 2s"}, n.log())
	})
}

func TestPullShowsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.pullTime = 64 * time.Second
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		time.Sleep(32500 * time.Millisecond)
		synctest.Wait()
		s, _ := a.pool.Status("uid-web")
		want := &corev1.ContainerStateWaiting{Reason: "ContainerCreating", Message: `pulling image "busybox:1": 32MiB of 64MiB (50%)`}
		if d := cmp.Diff(want, s.ContainerStatuses[0].State.Waiting); d != "" {
			t.Errorf("the status says how far a pull has come (-want +got):\n%s", d)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		wantEvents := []string{
			`Pulling: Pulling image "busybox:1"`,
			`Pulling: pulling image "busybox:1": 30MiB of 64MiB (46%)`,
			`Pulling: pulling image "busybox:1": 60MiB of 64MiB (93%)`,
			`Pulled: Successfully pulled image "busybox:1" in 1m4s (1m4s including waiting). Image size: 0 bytes.`,
			`Created: Created container: main`,
			`Started: Started container main`,
		}
		if d := cmp.Diff(wantEvents, n.events); d != "" {
			t.Errorf("and events do now and then (-want +got):\n%s", d)
		}
	})
}

func TestPullBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.failing["pull"] = errors.New("no such host")
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		var got []string
		for _, at := range []time.Duration{0, 3, 10, 13, 30, 33} {
			time.Sleep(at*time.Second - time.Since(a.born))
			synctest.Wait()
			s, _ := a.pool.Status("uid-web")
			got = append(got, s.ContainerStatuses[0].State.Waiting.Reason)
		}
		want := []string{"ErrImagePull", "ImagePullBackOff", "ErrImagePull", "ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("each failure is shown, then the wait for the next attempt (-want +got):\n%s", d)
		}
		if pulls := n.log(); len(pulls) != 3+3 { // with cgroup, volumes and sandbox
			t.Errorf("three attempts in 33 s, got %q", pulls)
		}
	})
}

func TestProbesFollowContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(5*time.Second, 5*time.Second)
		a := n.run(t, t.TempDir())
		defer a.end()
		asked := func() []string {
			synctest.Wait()
			n.mu.Lock()
			defer n.mu.Unlock()
			list := n.asked
			n.asked = nil
			return list
		}
		pod := basePod()
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: execHook("hello")}
		a.want(pod)
		check(t, "a container is probed once its start is over", nil, asked())
		time.Sleep(6 * time.Second)
		check(t, "then it is", []string{"probe main"}, asked())
		a.pool.Wake("uid-web")
		check(t, "once", nil, asked())
		n.Exit(a.container("main").ID, 1)
		time.Sleep(6 * time.Second)
		check(t, "its successor is another one", []string{"no more", "probe main"}, asked())
		if err := n.RemoveContainer(t.Context(), a.container("main").ID, false); err != nil { // as someone else might
			t.Fatal(err)
		}
		a.pool.Wake("uid-web")
		time.Sleep(6 * time.Second)
		check(t, "one that vanishes is not probed on", []string{"no more", "probe main"}, asked())
		a.want()
		check(t, "a pod that is ending says so", []string{"ending"}, asked())
		time.Sleep(6 * time.Second)
		check(t, "and is then left alone", []string{"no more", "none"}, asked())
	})
}
