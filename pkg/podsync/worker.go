package podsync

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// worker brings one pod to where it should be and keeps it there.
//
// Its run loop alone decides. Steps run beside it, at most one in each slot, so
// that a slow one (a pull, a grace period, a hook) holds up nothing but its own
// container; when a step ends it wakes the loop.
type worker struct {
	cfg     *Config
	uid     types.UID
	log     *slog.Logger
	wake    chan struct{}    // capacity 1
	resized func(freed bool) // tells the pool that the set of running pods has changed
	steps   sync.WaitGroup

	// Of the run loop alone.
	waits  map[string]string // why each container waited at the last pass
	probed map[string]bool   // container IDs handed to the prober
	told   bool              // the status has been told by this agent
	// resizeError is why the resize failed when that was told last.
	resizeError string
	ending      bool // the prober has been told of the end
	freed       bool // the sink has been told that nothing is held any more

	mu      sync.Mutex  // guards all below; not held across I/O
	source  *corev1.Pod // the pod as its source has it
	pod     *corev1.Pod // with what it was granted
	facts   facts
	flights map[string]flight // by slot
	rec     record            // as last saved, but for what is dirty
	dirty   bool
	unknown bool // there was no record: all that is known is what the source says
}

// facts are the outcomes of steps that nothing else remembers. A new agent does
// not know them and finds out by doing the steps again.
type facts struct {
	cgroup                  *qos.PodCgroup
	volumes                 map[string]Mounted
	cgroupGone, volumesGone bool
	stale                   bool // contents of volumes may have changed
	forgotten               bool
	images                  map[string]pulled
	pulling                 map[string]progress
	held                    map[string]failures
	hooked                  map[string]bool // container IDs whose preStop hook has begun
	done                    map[string]done // by holdKey
}

type pulled struct {
	attempt int
	image   cri.Image
}

// progress is how far a pull has come.
type progress struct {
	text        string
	told, noted time.Time // when the status, and when an event, last said so
}

type failures struct {
	Held
	count int
}

// done is a step that succeeded.
type done struct {
	step Step
	at   time.Time
}

// flight is a step that is being done.
type flight struct {
	step   Step
	cancel context.CancelFunc
}

// newWorker takes on a pod, where rec is what an earlier agent knew of it or nil.
func newWorker(cfg *Config, pod *corev1.Pod, rec *record, resized func(freed bool)) *worker {
	w := &worker{
		cfg: cfg, uid: pod.UID, resized: resized,
		log:     cfg.Log.With("pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID),
		wake:    make(chan struct{}, 1),
		flights: map[string]flight{},
		facts: facts{
			images: map[string]pulled{}, pulling: map[string]progress{}, held: map[string]failures{},
			hooked: map[string]bool{}, done: map[string]done{},
		},
		waits:  map[string]string{},
		probed: map[string]bool{},
	}
	grant := toldGrant(pod)
	if rec != nil {
		w.rec, grant = *rec, grantOf(rec.Pod)
	} else {
		w.rec = record{Started: time.Now(), Status: *pod.Status.DeepCopy(), Restarts: restarts(pod.Status)}
		if t := pod.Status.StartTime; t != nil {
			w.rec.Started = t.Time
		}
		w.dirty, w.unknown = true, true
	}
	w.source, w.pod = pod, grant.apply(pod)
	if w.pod != pod && w.rec.Pending == nil {
		w.rec.Pending = &Pending{Reason: corev1.PodReasonDeferred, Message: "The pods of this node are not counted yet", Generation: pod.Generation}
	}
	w.rec.Pod = w.pod
	if w.rec.Series == nil {
		w.rec.Series = map[string]int{}
	}
	if w.rec.Replace == nil {
		w.rec.Replace = map[string]Replace{}
	}
	if w.rec.PostStarted == nil {
		w.rec.PostStarted = map[string]bool{}
	}
	if w.rec.PreStopped == nil {
		w.rec.PreStopped = map[string]bool{}
	}
	return w
}

// run works until the pod is forgotten or the agent stops; then the pod goes on.
func (w *worker) run(ctx context.Context) (done bool) {
	defer w.steps.Wait()
	w.restore(w.snapshot())
	for ctx.Err() == nil {
		wake, done := w.pass(ctx)
		if done {
			w.callOff(func(Step) bool { return true })
			return true
		}
		var alarm <-chan time.Time
		if !wake.IsZero() {
			alarm = time.After(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return false
		case <-w.wake: // many reasons, one pass
		case <-alarm:
		}
	}
	return false
}

// snapshot copies what is recorded.
func (w *worker) snapshot() record {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec := w.rec
	rec.Series, rec.Replace = maps.Clone(rec.Series), maps.Clone(rec.Replace)
	rec.PostStarted, rec.PreStopped = maps.Clone(rec.PostStarted), maps.Clone(rec.PreStopped)
	return rec
}

// poke asks for another pass.
func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// restore hands on what the last agent knew: the results of probes, so that a
// restart of the agent changes no container's readiness, and where a series of
// crashes began when nobody wrote it down.
func (w *worker) restore(rec record) {
	for _, list := range [][]corev1.ContainerStatus{rec.Status.InitContainerStatuses, rec.Status.ContainerStatuses} {
		for _, c := range list {
			if c.State.Running != nil {
				w.cfg.Probes.Seed(w.uid, bareID(c.ContainerID), c.Started != nil && *c.Started, c.Ready)
			}
		}
	}
	have, _ := w.cfg.Runtime.Pod(w.uid)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.unknown {
		return
	}
	for _, a := range have.Containers {
		if _, known := w.rec.Series[a.Name]; !known && a.Attempt > 0 {
			w.rec.Series[a.Name] = a.Attempt
		}
	}
}

// pass observes, decides, reports and starts what was decided.
func (w *worker) pass(ctx context.Context) (wake time.Time, done bool) {
	now := time.Now()
	want, have := w.observe()
	w.callOffDead(have)
	plan := Next(want, have, now)
	if plan.End != nil && want.End == nil {
		w.decideEnd(*plan.End)
		if plan.End.Reason != "" {
			w.note(plan.End.Reason, "%s", plan.End.Message)
		}
	}
	w.tellWaiting(want.Pod, plan)
	w.tellResize(want.Pod, &have)
	w.report(want, have, plan, now)
	if plan.Done {
		return time.Time{}, true
	}
	for _, s := range plan.Steps {
		if have.Busy[s.slot()] == "" { // else its outcome was not part of the decision
			w.launch(ctx, s)
		}
	}
	return plan.Wake, false
}

// callOffDead cancels what is still being done with containers that have exited:
// a hook has nobody left to speak to, and must not hold up what comes next.
func (w *worker) callOffDead(have Have) {
	for i := range have.Pod.Containers {
		if a := &have.Pod.Containers[i]; a.State == cri.Exited && have.Busy[containerSlot(a.Name)] != "" {
			w.callOff(func(s Step) bool { return a.ID == hookOf(s) })
		}
	}
}

// hookOf is the ID of the container for which a step may be running a hook.
func hookOf(s Step) string {
	switch s := s.(type) {
	case PostStart:
		return s.ID
	case PreStop:
		return s.ID
	case StopContainer:
		return s.ID
	default:
		return ""
	}
}

// observe gathers what the decision depends on: first what the worker knows,
// then the runtime. In this order a step that is no longer in flight has left
// its mark on what is observed.
func (w *worker) observe() (Want, Have) {
	want, have := w.recall()
	have.Pod, have.Exists = w.cfg.Runtime.Pod(w.uid)
	w.syncProbes(want, have)
	return want, have
}

// recall is what the worker itself knows.
func (w *worker) recall() (Want, Have) {
	w.mu.Lock()
	defer w.mu.Unlock()
	backOff, err := w.cfg.BackOff.forPod(w.pod)
	if err != nil {
		backOff = w.cfg.BackOff // told once, when the pod was taken on
	}
	want := Want{Pod: w.pod, End: w.rec.End, Gone: w.rec.Gone, BackOff: backOff}
	have := Have{
		Started: w.rec.Started, NodeIPs: w.cfg.NodeIPs,
		Cgroup: w.facts.cgroup != nil, Volumes: w.facts.volumes != nil,
		CgroupGone: w.facts.cgroupGone, VolumesGone: w.facts.volumesGone, Stale: w.facts.stale, Forgotten: w.facts.forgotten,
		Images: map[string]int{}, Pulling: map[string]string{}, Probes: map[string]Health{},
		Busy: map[string]string{}, Held: map[string]Held{},
		Sized: w.rec.Sized, Resizing: w.rec.Resizing, Pending: w.rec.Pending,
		Series: maps.Clone(w.rec.Series), Replace: maps.Clone(w.rec.Replace),
		PostStarted: maps.Clone(w.rec.PostStarted), PreStopped: maps.Clone(w.rec.PreStopped),
	}
	maps.Copy(have.PreStopped, w.facts.hooked)
	for name, p := range w.facts.images {
		have.Images[name] = p.attempt
	}
	for name, p := range w.facts.pulling {
		have.Pulling[name] = p.text
	}
	for slot, f := range w.flights {
		have.Busy[slot] = f.step.verb()
	}
	have.Restarts = w.rec.Restarts
	for k, f := range w.facts.held {
		have.Held[k] = f.Held
	}
	return want, have
}

// syncProbes has running containers probed, and no others, and reads what was
// found. A container is probed only once its start is over.
func (w *worker) syncProbes(want Want, have Have) {
	up := map[string]bool{}
	for i := range have.Pod.Containers {
		a := &have.Pod.Containers[i]
		if a.State != cri.Running {
			continue
		}
		up[a.ID] = true
		if !w.probed[a.ID] && !have.starting(specOf(want.Pod, a.Name), a) {
			w.probed[a.ID] = true
			w.cfg.Probes.Sync(want.Pod, a.Name, a.ID, a.StartedAt)
		}
		have.Probes[a.ID] = w.health(want.Pod, a)
	}
	maps.DeleteFunc(w.probed, func(id string, _ bool) bool {
		if !up[id] {
			w.cfg.Probes.Remove(id)
		}
		return !up[id]
	})
	if want.End != nil && !w.ending {
		w.ending = true
		w.cfg.Probes.Ending(w.uid)
	}
}

// health is what probes say of a running container; a probe that the container
// does not have is a probe that succeeds.
func (w *worker) health(pod *corev1.Pod, a *cri.Container) Health {
	c := specOf(pod, a.Name)
	if c == nil {
		return Health{}
	}
	return Health{
		Failed:  w.cfg.Probes.Failed(a.ID),
		Started: c.StartupProbe == nil || w.cfg.Probes.Started(a.ID),
		Ready:   c.ReadinessProbe == nil || w.cfg.Probes.Ready(a.ID),
	}
}

// decideEnd makes End a fact, and stops what is still being started. A later
// decision can only shorten the grace period. It says whether it made a difference.
func (w *worker) decideEnd(e End) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if have := w.rec.End; have != nil {
		sooner := *have
		sooner.Grace = e.At.Add(e.Grace).Sub(have.At)
		if sooner.Grace >= have.Grace {
			return false
		}
		e = sooner
		w.cancelFlights(StopContainer{}.verb(), PreStop{}.verb())
	} else {
		w.cancelFlights(StartContainer{}.verb(), PostStart{}.verb(), PullImage{}.verb(), SetupVolumes{}.verb(), EnsureCgroup{}.verb())
	}
	w.rec.End = &e
	w.dirty = true
	return true
}

// callOff cancels steps in flight.
func (w *worker) callOff(which func(Step) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.flights {
		if which(f.step) {
			f.cancel()
		}
	}
}

// cancelFlights cancels the steps with one of these verbs. The caller holds mu.
func (w *worker) cancelFlights(verbs ...string) {
	for _, f := range w.flights {
		if slices.Contains(verbs, f.step.verb()) {
			f.cancel()
		}
	}
}
