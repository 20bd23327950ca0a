//go:build integration

package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func (m *machine) must(name string, args ...string) {
	m.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// try runs a client command and returns its standard output.
func (m *machine) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.bin, append([]string{"--socket", m.dir + "/run/agent.sock"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("nodeagent %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// run is try for commands that must succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// manifest writes a file into the manifest directory, whole at once.
func (m *machine) manifest(name, text string) {
	m.t.Helper()
	tmp := m.dir + "/" + name + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(m.manifests, name)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) removeManifest(name string) {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.manifests, name)); err != nil {
		m.t.Fatal(err)
	}
}

// pod reads a pod by the name in its manifest.
func (m *machine) pod(name string) (*corev1.Pod, error) {
	out, err := m.try("get", "pods", name, "-o", "json")
	if err != nil {
		return nil, err
	}
	var p corev1.Pod
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		return nil, err
	}
	return &p, nil
}

// await waits until a pod is as ok wants it, and returns it.
func (m *machine) await(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	m.t.Helper()
	var pod *corev1.Pod
	m.eventually(name+": "+what, func() error {
		p, err := m.pod(name)
		if err != nil {
			return err
		}
		pod = p
		if !ok(p) {
			status, err := json.Marshal(p.Status)
			return errors.Join(err, fmt.Errorf("status is %s", status))
		}
		return nil
	})
	return pod
}

// eventually polls the client's view; it is how a user would wait.
func (m *machine) eventually(what string, f func() error) {
	m.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	m.t.Fatalf("%s: still not so after %s: %v", what, patience, err)
}

func (m *machine) awaitGone(name string) {
	m.t.Helper()
	m.eventually(name+" is gone", func() error {
		if _, err := m.pod(name); err == nil {
			return errors.New("it is still there")
		}
		return nil
	})
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func containerIDs(p *corev1.Pod) map[string]string {
	ids := map[string]string{}
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		ids[s.Name] = s.ContainerID
	}
	return ids
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// notIn and in turn what a string holds into an error for eventually.
func notIn(s, unwanted string) error {
	if strings.Contains(s, unwanted) {
		return fmt.Errorf("%q is in %q", unwanted, s)
	}
	return nil
}

func in(s, wanted string) error {
	if !strings.Contains(s, wanted) {
		return fmt.Errorf("%q is not in %q", wanted, s)
	}
	return nil
}

// lineHas says whether the line that begins with first also holds word.
func lineHas(text, first, word string) bool {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == first {
			return f[2] == word
		}
	}
	return false
}

func waitingReasons(p *corev1.Pod) string {
	var out []string
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if s.State.Waiting != nil {
			out = append(out, s.State.Waiting.Reason)
		}
	}
	return strings.Join(out, " ")
}
