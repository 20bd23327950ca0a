//go:build integration && registry

package node

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/internal/testimage"
	"github.com/nodeagent/nodeagent/internal/testregistry"
)

// gateway is a registry that the agent reaches on the loopback of its own network
// namespace.
func (m *machine) gateway() (*testregistry.Registry, *testregistry.Gateway) {
	m.t.Helper()
	type result struct {
		listener net.Listener
		err      error
	}
	listening := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends in that namespace
		l, err := m.listen()
		listening <- result{l, err}
	}()
	l := <-listening
	if l.err != nil {
		m.t.Fatal(l.err)
	}
	r := testregistry.Start(m.t)
	return r, r.Gateway(m.t, l.listener)
}

// listen moves the calling thread into the network namespace.
func (m *machine) listen() (net.Listener, error) {
	ns, err := os.Open("/run/netns/" + m.netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w", m.netns, err)
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// newImage is busybox with some bytes that no other image has.
func newImage(t *testing.T, name string, size int) testimage.Image {
	t.Helper()
	const busybox = "/bin/busybox" // as `make demo-image`, which installs it
	binary, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	i := testimage.Busybox(name, binary, strings.Fields(string(applets)))
	data := make([]byte, size)
	_, _ = rand.Read(data)
	i.Files["var/data"] = testimage.File{Data: data, Mode: 0o644}
	return i
}

// imagePod is a pod that only needs its image; spec is more lines of its spec.
func imagePod(name, ref string, policy corev1.PullPolicy, spec string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
%s
  containers:
  - name: main
    image: %s
    imagePullPolicy: %s
    command: [sleep, "100000"]
`, name, spec, ref, policy)
}

// waiting is why the only container of a pod does not run.
func waiting(p *corev1.Pod) (reason, message string) {
	if s := p.Status.ContainerStatuses; len(s) == 1 && s[0].State.Waiting != nil {
		return s[0].State.Waiting.Reason, s[0].State.Waiting.Message
	}
	return "", ""
}

// awaitEvent waits for an event of a pod, as `describe` shows it.
func (m *machine) awaitEvent(pod, kind, reason, message string) {
	m.t.Helper()
	line := regexp.MustCompile(`(?m)^ *` + kind + ` +` + reason + ` .*` + message)
	m.eventually(pod+": event "+line.String(), func() error {
		out, err := m.try("describe", "pod", pod)
		if err == nil && !line.MatchString(out) {
			err = errors.New(out)
		}
		return err
	})
}

// heard is what comes from a channel.
func (m *machine) heard(what string, from <-chan string) {
	m.t.Helper()
	select {
	case <-from:
	case <-time.After(patience):
		m.t.Fatalf("waited in vain for %s", what)
	}
}

func TestSlowPullShowsItsProgress(t *testing.T) {
	m := newMachine(t, "", "")
	registry, gate := m.gateway()
	gate.Open, gate.Drip = make(chan struct{}), 100*time.Millisecond
	registry.Push(t, newImage(t, "demo/slow:1", 40<<20)) // minutes at that pace
	m.start()
	ref := gate.Host + "/demo/slow:1"
	m.manifest("slow.yaml", imagePod("slow", ref, corev1.PullIfNotPresent, ""))
	const bytesOf = `[0-9.]+MiB of [0-9.]+MiB \([0-9]+%\)`
	progress := regexp.MustCompile(`^pulling image "` + regexp.QuoteMeta(ref) + `": ` + bytesOf + `$`)
	pod := m.await("slow", "says how far its image is", func(p *corev1.Pod) bool {
		_, message := waiting(p)
		return progress.MatchString(message)
	})
	if reason, _ := waiting(pod); reason != "ContainerCreating" || pod.Status.Phase != corev1.PodPending {
		t.Errorf("while it is pulled: reason %q, phase %s", reason, pod.Status.Phase)
	}
	bar := regexp.MustCompile(`Pulling\[#+\.+\][0-9]+%`)
	m.eventually("a bar in get pods", func() error {
		out, err := m.try("get", "pods")
		if err == nil && !bar.MatchString(out) {
			err = errors.New(out)
		}
		return err
	})
	m.awaitEvent("slow", "Normal", "Pulling", `pulling image .*`+bytesOf)
	close(gate.Open)
	m.await("slow", "running", ready)
	m.awaitEvent("slow", "Normal", "Pulled", "Successfully pulled image")
}

func TestImagePullSecret(t *testing.T) {
	m := newMachine(t, "", "")
	registry, gate := m.gateway()
	gate.User, gate.Password = "anna", "s3cret"
	registry.Push(t, newImage(t, "demo/private:1", 1<<10))
	m.start()
	ref := gate.Host + "/demo/private:1"
	m.manifest("private.yaml", imagePod("private", ref, corev1.PullIfNotPresent, "  imagePullSecrets: [{name: door}]"))
	m.awaitEvent("private", "Warning", "FailedToRetrieveImagePullSecret", "door")
	m.awaitEvent("private", "Warning", "Failed", "Error: ErrImagePull")
	pod := m.await("private", "waits for the next try", func(p *corev1.Pod) bool {
		reason, _ := waiting(p)
		return reason == "ImagePullBackOff"
	})
	if _, message := waiting(pod); in(message, "next try at") != nil || in(message, "ErrImagePull") != nil || in(message, ref) != nil {
		t.Errorf("the message of ImagePullBackOff does not tell all: %s", message)
	}
	m.awaitEvent("private", "Warning", "Failed", "Error: ImagePullBackOff")
	m.manifest("door.yaml", pullSecret("door", gate.Host, "anna", "s3cret"))
	m.await("private", "running", ready)
	log, err := os.ReadFile(m.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	out := m.run("describe", "pod", "private") + m.run("get", "pods", "private", "-o", "yaml") + string(log)
	if err := notIn(out, "s3cret"); err != nil {
		t.Error("the password is told")
	}
	for line := range strings.Lines(string(log)) { // also what the library for registries has to say
		if !json.Valid([]byte(line)) {
			t.Errorf("not in the agent's own form: %s", line)
		}
	}
}

func pullSecret(name, host, user, password string) string {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	config := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, auth)
	return fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: %s}
type: kubernetes.io/dockerconfigjson
data: {.dockerconfigjson: %s}
`, name, base64.StdEncoding.EncodeToString([]byte(config)))
}

func TestPodRemovedInMidPull(t *testing.T) {
	m := newMachine(t, "", "")
	registry, gate := m.gateway()
	gate.Open = make(chan struct{})
	built := registry.Push(t, newImage(t, "demo/never:1", 20<<20))
	m.start()
	m.manifest("never.yaml", imagePod("never", gate.Host+"/demo/never:1", corev1.PullIfNotPresent, ""))
	m.heard("half of the image to be there", gate.Halfway)
	m.removeManifest("never.yaml")
	m.heard("the registry to be hung up on", gate.Gone)
	m.awaitGone("never")
	if err := notIn(m.run("images"), "demo/never"); err != nil {
		t.Error(err)
	}
	client := m.containerd()
	m.eventually("nothing is left of the pull", func() error { return m.leftOfPull(client, built) })
}

// leftOfPull says what containerd still has of an image that nobody wants.
func (m *machine) leftOfPull(client *containerd.Client, built testimage.Content) error {
	var errs []error
	leases, err := client.LeasesService().List(m.t.Context())
	errs = append(errs, err)
	for _, l := range leases {
		errs = append(errs, fmt.Errorf("lease %s %v", l.ID, l.Labels))
	}
	half, err := client.ContentStore().ListStatuses(m.t.Context())
	errs = append(errs, err)
	for _, s := range half {
		errs = append(errs, fmt.Errorf("%d bytes of %s", s.Offset, s.Ref))
	}
	for d := range built.Blobs {
		if _, err := client.ContentStore().Info(m.t.Context(), d); err == nil {
			errs = append(errs, fmt.Errorf("all of %s", d))
		}
	}
	return errors.Join(errs...)
}

func (m *machine) containerd() *containerd.Client {
	m.t.Helper()
	var socket string
	m.eventually("containerd's socket", func() error {
		out, err := exec.Command("find", m.dir, "-name", "containerd.sock", "-type", "s").Output()
		socket = strings.TrimSpace(string(out))
		if err == nil && socket == "" {
			err = errors.New("there is none")
		}
		return err
	})
	client, err := containerd.New(socket, containerd.WithDefaultNamespace("nodeagent"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestArchiveArrives(t *testing.T) {
	m := newMachine(t, "", "")
	m.images = m.dir + "/images"
	m.writeConfig("", "")
	m.start()
	for name, policy := range map[string]corev1.PullPolicy{"absent": corev1.PullIfNotPresent, "never": corev1.PullNever} {
		m.manifest(name+".yaml", imagePod(name, "127.0.0.1:1/demo/"+name+":1", policy, ""))
	}
	m.await("never", "says that its image will not be pulled", func(p *corev1.Pod) bool {
		reason, message := waiting(p)
		return reason == "ErrImageNeverPull" && in(message, "127.0.0.1:1/demo/never:1") == nil
	})
	m.await("absent", "cannot be pulled", func(p *corev1.Pod) bool {
		reason, _ := waiting(p)
		return reason == "ErrImagePull" || reason == "ImagePullBackOff"
	})
	for _, name := range []string{"absent", "never"} {
		m.archive(name+".tar", newImage(t, "127.0.0.1:1/demo/"+name+":1", 1<<10))
		m.await(name, "running", ready)
	}
}

// archive puts an image into the image directory, as `cp` would: not whole at once.
func (m *machine) archive(name string, i testimage.Image) {
	m.t.Helper()
	var b bytes.Buffer
	if err := testimage.Write(&b, i); err != nil {
		m.t.Fatal(err)
	}
	f, err := os.Create(m.images + "/" + name)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	for part := range slices.Chunk(b.Bytes(), 100<<10) {
		if _, err := f.Write(part); err != nil {
			m.t.Fatal(err)
		}
	}
}

func TestUnusedImagesAreRemoved(t *testing.T) {
	// A pass is made when the agent starts. No unused image may stay then: the disk
	// is not empty, and 0s would be the default, as everywhere in this configuration.
	m := newMachine(t, "imageGCHighThresholdPercent: 1\nimageGCLowThresholdPercent: 0\nimageMinimumGCAge: 1ms", "")
	registry, gate := m.gateway()
	m.start()
	built := map[string]testimage.Content{}
	for _, name := range []string{"used", "unused", "pinned"} {
		built[name] = registry.Push(t, newImage(t, "demo/"+name+":1", 1<<20))
		m.manifest(name+".yaml", imagePod(name, gate.Host+"/demo/"+name+":1", corev1.PullIfNotPresent, ""))
	}
	for name := range built {
		m.await(name, "running", ready)
	}
	m.pin(gate.Host + "/demo/pinned:1")
	for _, name := range []string{"unused", "pinned"} {
		m.removeManifest(name + ".yaml")
		m.awaitGone(name)
	}
	m.stop()
	m.start()
	m.eventually("the unused image is removed", func() error { return notIn(m.run("images"), "demo/unused") })
	list := m.run("images")
	for _, stays := range []string{"demo/used", "demo/pinned", "demo/busybox"} { // one is used, one pinned, one an archive
		if err := in(list, stays); err != nil {
			t.Error(err)
		}
	}
	layer := blobOf(built["unused"], gate.Asked)
	m.manifest("unused.yaml", imagePod("unused", gate.Host+"/demo/unused:1", corev1.PullIfNotPresent, ""))
	m.await("unused", "running again", ready)
	if blobOf(built["unused"], gate.Asked) <= layer {
		t.Error("it runs again on an image that was not pulled again")
	}
	m.await("used", "running all the time", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 0 })
}

// blobOf is how often parts of an image were fetched.
func blobOf(built testimage.Content, asked func(method, part string) int) int {
	n := 0
	for d := range built.Blobs {
		if d != built.Manifest.Digest {
			n += asked("GET", d.String())
		}
	}
	return n
}

// pin marks an image as other users of containerd do.
func (m *machine) pin(name string) {
	m.t.Helper()
	service := m.containerd().ImageService()
	i, err := service.Get(m.t.Context(), name)
	if err != nil {
		m.t.Fatal(err)
	}
	i.Labels = map[string]string{"io.cri-containerd.pinned": "pinned"}
	if _, err := service.Update(m.t.Context(), i, "labels.io.cri-containerd.pinned"); err != nil {
		m.t.Fatal(err)
	}
}
