package podsync

import (
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(0, 10*time.Second)
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"hello"}}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"bye"}}},
		}
		a.want(pod)
		s, _ := a.pool.Status("uid-web")
		if c := s.ContainerStatuses[0]; c.State.Running == nil || *c.Started || c.Ready {
			t.Errorf("while its postStart hook runs a container runs but has not started, got %+v", c)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if s, _ := a.pool.Status("uid-web"); !s.ContainerStatuses[0].Ready {
			t.Errorf("after it, it has: %+v", s.ContainerStatuses[0])
		}
		n.log()
		a.want()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		got := n.log()
		check(t, "the hook's time comes off the grace period", []string{"exec [main bye]", "stop main 20s"}, got[:2])
	})
}

// execHook runs a command that the runtime in memory knows.
func execHook(cmd ...string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: cmd}}
}

func TestSidecarHooksRunAtOnceAndSignalsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(time.Second, 10*time.Second)
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		withSidecars(pod, "first", "second")
		for i := range pod.Spec.InitContainers {
			pod.Spec.InitContainers[i].Lifecycle = &corev1.Lifecycle{PreStop: execHook("bye")}
		}
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: execHook("bye")}
		a.want(pod)
		n.log()
		a.want()
		check(t, "as in the kubelet all hooks begin with the end of the pod",
			[]string{"exec [main bye]", "exec [first bye]", "exec [second bye]"}, n.log())
		time.Sleep(15 * time.Second)
		synctest.Wait()
		got := n.log()
		want := []string{"stop main 20s", "stop second 19s", "stop first 18s"}
		if len(got) < 3 || !slices.Equal(got[:3], want) {
			t.Errorf("the signals wait for their turn, and no hook runs twice: want %q first, got %q", want, got)
		}
	})
}

func TestSidecarHookEndsWithTheGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(0, time.Hour)
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		withSidecars(pod, "proxy")
		pod.Spec.InitContainers[0].Lifecycle = &corev1.Lifecycle{PreStop: execHook("bye")}
		a.want(pod)
		a.want()
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if _, there := a.pool.Status("uid-web"); !there || a.container("proxy").State != cri.Running {
			t.Error("within the grace period the hook may take its time")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, there := a.pool.Status("uid-web"); there {
			t.Error("then its container is stopped all the same")
		}
		if !slices.ContainsFunc(n.events, func(e string) bool { return strings.HasPrefix(e, "FailedPreStopHook: ") }) {
			t.Errorf("and it is told: %q", n.events)
		}
	})
}

func TestAHookThatIsCutShortIsNotPlannedOverAndOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.Slow(time.Hour, time.Hour)
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		withSidecars(pod, "proxy")
		pod.Spec.InitContainers[0].Lifecycle = &corev1.Lifecycle{PreStop: execHook("bye")}
		a.want(pod)
		a.want()
		w := a.pool.worker("uid-web")
		w.decideEnd(End{At: time.Now(), Grace: 20 * time.Second}) // instead of 30 s
		w.poke()
		synctest.Wait() // never, while passes follow each other
		if _, have := w.observe(); !have.PreStopped[a.container("proxy").ID] || have.Busy[containerSlot("proxy")] != "" {
			t.Errorf("what was cut short is not begun again by this agent: %v, busy %v", have.PreStopped, have.Busy)
		}
	})
}

func TestNoHookWithoutGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		pod.Spec.TerminationGracePeriodSeconds = new(int64(0))
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: execHook("bye")}
		a.want(pod)
		n.log()
		a.want()
		if got := n.log(); slices.Contains(got, "exec [main bye]") || !slices.Contains(got, "stop main 2s") {
			t.Errorf("a pod without a grace period has no time for a hook: %q", got)
		}
	})
}

func TestFailedPostStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: execHook("false"), PreStop: execHook("bye")}
		a.want(pod)
		s, _ := a.pool.Status("uid-web")
		c := s.ContainerStatuses[0]
		if c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" || c.RestartCount != 1 {
			t.Errorf("the container is ended, and restarted as after a crash: %+v", c)
		}
		for _, want := range []string{`FailedPostStartHook: PostStartHook failed: exec ["false"]: exited with 1: ""`, "Killing: FailedPostStartHook"} {
			if !slices.Contains(n.events, want) {
				t.Errorf("no event %q in %q", want, n.events)
			}
		}
		if !slices.Contains(n.log(), "exec [main bye]") {
			t.Error("its preStop hook runs as before any stop")
		}
	})
}

func TestAHookDoesNotOutliveItsContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 25}}}
		a.want(pod)
		a.want()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if a.container("main").State != cri.Running {
			t.Error("a container runs on while its hook sleeps")
		}
		n.Exit(a.container("main").ID, 0)
		synctest.Wait()
		if _, there := a.pool.Status("uid-web"); there {
			t.Error("when it ends by itself nobody waits for the rest of the sleep")
		}
	})
}

func TestAHookOfADeadContainerHoldsUpNoRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		a := n.run(t, t.TempDir())
		defer a.end()
		pod := basePod()
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3600}}}
		a.want(pod)
		n.Exit(a.container("main").ID, 1)
		time.Sleep(11 * time.Second) // the delay after the first crash is 10 s
		synctest.Wait()
		if c := a.container("main"); c.Attempt != 1 || c.State != cri.Running {
			t.Errorf("the next attempt does not wait for the hook of the last: %+v", c)
		}
	})
}

func TestHooksAndAgentRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		n.Slow(0, 10*time.Second)
		pod := basePod()
		pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: execHook("hello"), PreStop: execHook("bye")}
		a := n.run(t, dir)
		a.want(pod)
		a.end() // in the middle of the postStart hook
		n.log()
		a = n.run(t, dir)
		a.want(pod)
		check(t, "a postStart hook that was broken off runs again", []string{"exec [main hello]"}, n.log())
		if s, _ := a.pool.Status("uid-web"); s.ContainerStatuses[0].Ready {
			t.Error("and until it is over its container has not started")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		a.end()
		a = n.run(t, dir)
		a.want(pod)
		check(t, "one that is over does not", nil, n.log())
		a.want()
		a.end() // in the middle of the preStop hook
		n.log()
		a = n.run(t, dir)
		defer a.end()
		a.want()
		check(t, "the same is true of a preStop hook", []string{"exec [main bye]"}, n.log())
	})
}

// redirecting answers in ways that a hook does not care for, and counts.
type redirecting struct {
	mu   sync.Mutex // guards seen
	seen []string
}

func (r *redirecting) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.seen = append(r.seen, req.Host+req.URL.String()+" "+req.Header.Get("User-Agent")+" "+strings.Join(req.Header["X"], "+"))
	r.mu.Unlock()
	switch req.URL.Path {
	case "/bad":
		http.Error(w, "not now", http.StatusServiceUnavailable)
	case "/here":
		http.Redirect(w, req, "/ok", http.StatusFound)
	case "/there":
		http.Redirect(w, req, "http://hook.invalid/", http.StatusFound)
	}
}

func TestHTTPHook(t *testing.T) {
	plain, secure := httptest.NewServer(&redirecting{}), httptest.NewUnstartedServer(&redirecting{})
	secure.Config.ErrorLog = log.New(t.Output(), "", 0)
	secure.StartTLS()
	defer plain.Close()
	defer secure.Close()
	cases := map[string]struct {
		reason string
		to     *httptest.Server
		get    corev1.HTTPGetAction
		want   string // the last that the server saw, without its address; empty is a failure
	}{
		"OK":         {"a hook is a request", plain, corev1.HTTPGetAction{Path: "/ok?q=1"}, "/ok?q=1 kube-lifecycle/nodeagent "},
		"NoSlash":    {"a path needs no slash", plain, corev1.HTTPGetAction{Path: "ok"}, "/ok kube-lifecycle/nodeagent "},
		"NoPath":     {"or is not there at all", plain, corev1.HTTPGetAction{}, "/ kube-lifecycle/nodeagent "},
		"Unwell":     {"as in the kubelet any answer will do", plain, corev1.HTTPGetAction{Path: "/bad"}, "/bad kube-lifecycle/nodeagent "},
		"Here":       {"a redirect on the same host is followed", plain, corev1.HTTPGetAction{Path: "/here"}, "/ok kube-lifecycle/nodeagent "},
		"There":      {"one to another host is not", plain, corev1.HTTPGetAction{Path: "/there"}, "/there kube-lifecycle/nodeagent "},
		"HTTPS":      {"nobody vouches for a pod's certificate", secure, corev1.HTTPGetAction{Path: "/ok", Scheme: corev1.URISchemeHTTPS}, "/ok kube-lifecycle/nodeagent "},
		"Fallback":   {"a server that does not know TLS is asked without", plain, corev1.HTTPGetAction{Path: "/ok", Scheme: corev1.URISchemeHTTPS}, "/ok kube-lifecycle/nodeagent "},
		"OtherHost":  {"a path cannot name another host", plain, corev1.HTTPGetAction{Path: "//hook.invalid/ok"}, "/ok kube-lifecycle/nodeagent "},
		"NobodyHome": {"nobody there is a failure", plain, corev1.HTTPGetAction{Path: "/ok", Port: intstr.FromInt32(1)}, ""},
		"NoSuchPort": {"so is a port without a name", plain, corev1.HTTPGetAction{Path: "/ok", Port: intstr.FromString("nope")}, ""},
		"Headers": {"headers are handed on, and may replace ours", plain, corev1.HTTPGetAction{Path: "/ok", HTTPHeaders: []corev1.HTTPHeader{
			{Name: "User-Agent", Value: "mine"}, {Name: "X", Value: "1"}, {Name: "X", Value: "2"},
		}}, "/ok mine 1+2"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(tc.to.URL)
			if err != nil {
				t.Fatal(err)
			}
			port, err := strconv.Atoi(u.Port())
			if err != nil {
				t.Fatal(err)
			}
			if tc.get.Port == (intstr.IntOrString{}) {
				tc.get.Port = intstr.FromString("web")
			}
			tc.get.Host = u.Hostname()
			w := &worker{cfg: &Config{}}
			err = w.httpHook(t.Context(), &tc.get, &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}})
			if tc.want == "" {
				if err == nil {
					t.Errorf("%s: no error", tc.reason)
				}
				return
			}
			handler, _ := tc.to.Config.Handler.(*redirecting)
			got := strings.TrimPrefix(handler.seen[len(handler.seen)-1], u.Host)
			if err != nil || got != tc.want {
				t.Errorf("%s: want %q, got %q and error %v", tc.reason, tc.want, got, err)
			}
		})
	}
}
