package podsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// launch does a step beside the run loop, unless its slot is taken. What cannot
// be done now is planned again by a later pass.
func (w *worker) launch(ctx context.Context, s Step) {
	ctx, cancel := context.WithCancel(ctx)
	w.mu.Lock()
	_, taken := w.flights[s.slot()]
	if !taken {
		w.flights[s.slot()] = flight{step: s, cancel: cancel}
	}
	w.mu.Unlock()
	if taken {
		cancel()
		return
	}
	w.steps.Go(func() {
		defer cancel()
		begin := time.Now()
		err := w.do(ctx, s)
		w.log.Debug("step done", "step", holdKey(s), "took", time.Since(begin))
		w.landed(ctx, s, err)
		w.poke()
	})
}

// landed frees the slot of a step and remembers its failure. A step that was
// called off has not failed.
func (w *worker) landed(ctx context.Context, s Step, err error) {
	calledOff := ctx.Err() != nil
	if err != nil && !calledOff {
		w.log.Warn("step failed", "step", holdKey(s), "err", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.flights, s.slot())
	switch {
	case err == nil:
		delete(w.facts.held, holdKey(s))
		w.slowDown(s)
	case !calledOff:
		f := w.facts.held[holdKey(s)]
		f.count++
		f.Since = time.Now()
		f.Until = f.Since.Add(retryDelay(s).after(f.count))
		f.Reason, f.Message = reasonOf(err), err.Error()
		w.facts.held[holdKey(s)] = f
	}
}

// slowDown holds back a step that succeeds over and over and changes nothing: a
// disagreement about facts must not keep the machine busy. The caller holds mu.
func (w *worker) slowDown(s Step) {
	const pause = time.Second
	now := time.Now()
	if last := w.facts.done[holdKey(s)]; now.Sub(last.at) < pause && sameStep(last.step, s) {
		w.facts.held[holdKey(s)] = failures{Held: Held{Since: now, Until: now.Add(pause)}}
	}
	w.facts.done[holdKey(s)] = done{step: s, at: now}
}

func sameStep(a, b Step) bool {
	x, stop := a.(StopContainer)
	y, _ := b.(StopContainer)
	if stop {
		return x.ID == y.ID
	}
	return a == b
}

// retryDelay is how a failing step is slowed down.
func retryDelay(s Step) BackOff {
	switch s.(type) {
	case PullImage:
		return BackOff{Initial: 10 * time.Second, Max: 5 * time.Minute}
	case UpdateVolumes: // what it waits for wakes it
		return BackOff{Initial: time.Second, Max: 5 * time.Minute}
	}
	return BackOff{Initial: time.Second, Max: 10 * time.Second}
}

// reasonOf is the kubelet's word for why a container does not start.
func reasonOf(err error) string {
	if e := (*cri.ImageError)(nil); errors.As(err, &e) {
		return e.Reason
	}
	if e := (*cri.StartError)(nil); errors.As(err, &e) {
		return e.Reason
	}
	return "CreateContainerError"
}

// do turns a step into its side effect.
func (w *worker) do(ctx context.Context, s Step) error {
	switch s := s.(type) {
	case EnsureCgroup:
		return w.ensureCgroup(ctx)
	case ResizePod:
		return w.resizePod(ctx)
	case SetupVolumes:
		return w.setupVolumes(ctx)
	case UpdateVolumes:
		return w.updateVolumes(ctx)
	case PullImage:
		return w.pullImage(ctx, s)
	case StartSandbox:
		return w.startSandbox(ctx)
	case StartContainer:
		return w.startContainer(ctx, s)
	case PostStart:
		return w.postStart(ctx, s)
	case PreStop:
		return w.preStop(ctx, s)
	case StopContainer:
		return w.stopContainer(ctx, s)
	case RemoveContainer:
		return w.removeContainer(ctx, s)
	case StopSandbox:
		return w.stopSandbox(ctx)
	case RemoveVolumes:
		return w.removeVolumes(ctx)
	case RemoveCgroup:
		return w.removeCgroup(ctx)
	case RemoveSandbox:
		return w.removeSandbox(ctx)
	case Forget:
		return w.forget()
	default:
		panic(fmt.Sprintf("podsync: unknown step %T", s))
	}
}

// learn writes down the outcome of a step.
func (w *worker) learn(f func(*facts)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.facts)
}

func (w *worker) warn(reason, format string, args ...any) { w.warnOf("", reason, format, args...) }

func (w *worker) note(reason, format string, args ...any) { w.noteOf("", reason, format, args...) }

func (w *worker) warnOf(container, reason, format string, args ...any) {
	w.cfg.Event(w.current(), container, corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...))
}

func (w *worker) noteOf(container, reason, format string, args ...any) {
	w.cfg.Event(w.current(), container, corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...))
}

func (w *worker) ensureCgroup(ctx context.Context) error {
	_, set := w.sizes()
	cg, err := w.cfg.Cgroups.EnsurePod(ctx, set)
	if err != nil {
		if ctx.Err() == nil {
			w.warn("FailedCreatePodContainer", "unable to ensure pod container exists: %v", err)
		}
		return fmt.Errorf("ensure cgroup: %w", err)
	}
	w.learn(func(f *facts) { f.cgroup = &cg })
	w.resized(false)
	return nil
}

func (w *worker) setupVolumes(ctx context.Context) error {
	volumes, err := w.cfg.Volumes.Setup(ctx, w.current())
	if err != nil {
		if ctx.Err() == nil {
			w.warn("FailedMount", "%v", err)
		}
		return fmt.Errorf("set up volumes: %w", err)
	}
	if volumes == nil {
		volumes = map[string]Mounted{}
	}
	w.learn(func(f *facts) { f.volumes, f.stale = volumes, false })
	return nil
}

func (w *worker) updateVolumes(ctx context.Context) error {
	w.learn(func(f *facts) { f.stale = false }) // what changes from here on counts anew
	if _, err := w.cfg.Volumes.Update(ctx, w.current()); err != nil {
		w.learn(func(f *facts) { f.stale = true })
		return fmt.Errorf("update volumes: %w", err)
	}
	return nil
}

func (w *worker) startSandbox(ctx context.Context) error {
	pod := w.current()
	name, domain, err := hostname(pod, w.cfg.DNS.ClusterDomain)
	if err == nil {
		err = w.startSandboxNamed(ctx, pod, name, domain)
	}
	if err != nil && ctx.Err() == nil {
		w.warn("FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
	}
	return err
}

func (w *worker) startSandboxNamed(ctx context.Context, pod *corev1.Pod, name, domain string) error {
	if old, ok := w.cfg.Runtime.Pod(w.uid); ok && old.Sandbox != nil && !old.Sandbox.Ready {
		w.note("SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	begin := time.Now()
	release, err := w.cfg.sandboxes.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	w.log.Debug("turn has come", "step", holdKey(StartSandbox{}), "took", time.Since(begin))
	conf, warnings := resolv(pod, w.cfg.DNS)
	for _, text := range warnings {
		w.warn("DNSConfigForming", "%s", text)
	}
	var parent string
	w.learn(func(f *facts) { parent = f.cgroup.Path })
	_, err = w.cfg.Runtime.StartSandbox(ctx, cri.SandboxConfig{
		Pod: pod, Hostname: name, Domain: domain, CgroupParent: parent, Resolv: conf,
	})
	if err != nil {
		return fmt.Errorf("start sandbox: %w", err)
	}
	return nil
}

// pullImage makes sure of an image and lets the waiting message show how far a
// slow pull has come.
func (w *worker) pullImage(ctx context.Context, s PullImage) error {
	pod := w.current()
	c := specOf(pod, s.Container)
	credentials, problems := pullCredentials(ctx, pod, c.Image, w.cfg.Lookups)
	for _, err := range problems {
		w.warn("FailedToRetrieveImagePullSecret", "Unable to use an image pull secret; attempting to pull the image may not succeed: %v", err)
	}
	began := time.Now()
	var first sync.Once
	pulling := false
	image, err := w.cfg.Images.EnsureImage(ctx, cri.ImageRequest{
		Ref: c.Image, Policy: c.ImagePullPolicy, Credentials: credentials,
		More: func(ctx context.Context) ([]cri.Credential, error) {
			if w.cfg.Lookups.Providers == nil {
				return nil, nil
			}
			return w.cfg.Lookups.Providers(ctx, pod, c.Image)
		},
		Progress: func(done, total int64) {
			first.Do(func() {
				pulling = true
				w.noteOf(c.Name, "Pulling", "Pulling image %q", c.Image)
			})
			w.showProgress(c, began, done, total)
		},
	})
	w.learn(func(f *facts) {
		delete(f.pulling, c.Name)
		if err == nil {
			f.images[c.Name] = pulled{attempt: s.Attempt, image: image}
		}
	})
	switch took := time.Since(began).Round(time.Millisecond); {
	case err == nil && pulling:
		w.noteOf(c.Name, "Pulled", "Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.", c.Image, took, took, image.Size)
	case err == nil:
		w.noteOf(c.Name, "Pulled", "Container image %q already present on machine", c.Image)
	case ctx.Err() == nil:
		w.warnOf(c.Name, "Failed", "Failed to pull image %q: %v", c.Image, err)
		w.warnOf(c.Name, "Failed", "Error: %s", reasonOf(err))
	}
	return err
}

// How often a pull in progress is told of.
const (
	progressEvery      = time.Second
	progressEventEvery = 30 * time.Second
)

// showProgress puts the progress of a pull where the status finds it, and now
// and then in an event.
func (w *worker) showProgress(c *corev1.Container, began time.Time, done, total int64) {
	text := cri.Progress{Image: c.Image, Done: done, Total: total}.String()
	now := time.Now()
	w.mu.Lock()
	p, known := w.facts.pulling[c.Name]
	if !known {
		p.noted = began
	}
	tell, note := now.Sub(p.told) >= progressEvery, now.Sub(p.noted) >= progressEventEvery
	if tell {
		p.text, p.told = text, now
	}
	if note {
		p.noted = now
	}
	w.facts.pulling[c.Name] = p
	w.mu.Unlock()
	if tell {
		w.poke()
	}
	if note {
		w.noteOf(c.Name, "Pulling", "%s", text)
	}
}

func (w *worker) removeContainer(ctx context.Context, s RemoveContainer) error {
	if err := w.cfg.Runtime.RemoveContainer(ctx, s.ID, false); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.rec.Replace, s.ID)
	delete(w.rec.PostStarted, s.ID)
	delete(w.rec.PreStopped, s.ID)
	delete(w.facts.hooked, s.ID)
	return nil
}

// stopSandbox waits for its turn: network plugins are programs, and hundreds at
// once only make each other slow.
func (w *worker) stopSandbox(ctx context.Context) error {
	release, err := w.cfg.stops.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return w.cfg.Runtime.StopSandbox(ctx, w.uid)
}

// removeSandbox removes the containers one by one first, since their logs go
// with them only when that is asked for.
func (w *worker) removeSandbox(ctx context.Context) error {
	observed, _ := w.cfg.Runtime.Pod(w.uid)
	var errs []error
	for _, a := range observed.Containers {
		errs = append(errs, w.cfg.Runtime.RemoveContainer(ctx, a.ID, false))
	}
	if err := errors.Join(append(errs, w.cfg.Runtime.RemoveSandbox(ctx, w.uid))...); err != nil {
		return fmt.Errorf("remove sandbox: %w", err)
	}
	return nil
}

func (w *worker) removeVolumes(ctx context.Context) error {
	w.cfg.Probes.RemovePod(w.uid)
	if err := w.cfg.Volumes.Teardown(ctx, w.uid); err != nil {
		return fmt.Errorf("remove volumes: %w", err)
	}
	w.learn(func(f *facts) { f.volumesGone = true })
	return nil
}

func (w *worker) removeCgroup(ctx context.Context) error {
	if err := w.cfg.Cgroups.RemovePod(ctx, w.uid); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	w.learn(func(f *facts) { f.cgroupGone = true })
	w.resized(true)
	return nil
}

// forget removes the pod's directory and, last, its record: as long as the
// record is there, an agent that starts anew comes back to finish this.
func (w *worker) forget() error {
	if err := os.RemoveAll(podDir(w.cfg.RootDir, w.uid, "containers")); err != nil {
		return fmt.Errorf("remove termination logs: %w", err)
	}
	if err := os.Remove(podDir(w.cfg.RootDir, w.uid)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove pod directory: %w", err)
	}
	if err := w.cfg.records().remove(w.uid); err != nil {
		return err
	}
	w.learn(func(f *facts) { f.forgotten = true })
	return nil
}
