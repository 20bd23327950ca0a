//go:build integration

package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func succeeded(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded }

// numbersTo are the lines that `seq first last` prints.
func numbersTo(first, last int) string {
	var b strings.Builder
	for i := first; i <= last; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// once is a pod that runs a shell script to its end.
func once(name, script string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: %s\n    command: [sh, -c, %q]\n", name, name, image, script)
}

func TestLogsOfRotatedFiles(t *testing.T) {
	m := newMachine(t, "containerLogMaxSize: 300Ki\ncontainerLogMaxFiles: 4", "")
	m.start()
	m.manifest("many.yaml", once("many", "until [ -e /go ]; do sleep 0.1; done; for i in 0 1 2 3 4 5 6 7 8 9; do seq $((i*3000+1)) $((i*3000+3000)); sleep 0.3; done; printf end"))
	pod := m.await("many", "running", ready)
	follower := m.client("logs", "-f", "many")
	if err := follower.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.run("exec", "many", "--", "touch", "/go")
	if err := follower.cmd.Wait(); err != nil {
		t.Fatalf("logs -f: %v: %s", err, follower.stderr.String())
	}
	if follower.stdout.String() != numbersTo(1, 30000)+"end" {
		t.Errorf("logs -f across rotations: %d bytes, want all numbers and the end", follower.stdout.Len())
	}
	m.await("many", "succeeded", succeeded)

	m.eventually("old files are compressed, and no more than asked for are left", func() error {
		files, err := filepath.Glob(fmt.Sprintf("%s/log/pods/default_many-node_%s/c/*", m.dir, pod.UID))
		if err != nil {
			t.Fatal(err)
		}
		plain, gz := 0, 0
		for _, f := range files {
			switch {
			case strings.HasSuffix(f, ".gz"):
				gz++
			case regexp.MustCompile(`/0\.log(\.[0-9]{8}-[0-9]{6}(\.[0-9]{9})?)?$`).MatchString(f):
				plain++
			}
		}
		if plain != 2 || gz != 2 || len(files) != 4 {
			return fmt.Errorf("files are %q", files)
		}
		return nil
	})
	for _, tc := range []struct{ reason, want string }{
		{"the newest file is enough", numbersTo(29999, 30000) + "end"},
		{"some are in a compressed file", numbersTo(15001, 30000) + "end"},
	} {
		if got := m.run("logs", "many", fmt.Sprintf("--tail=%d", strings.Count(tc.want, "\n")+1)); got != tc.want {
			t.Errorf("%s: --tail gives %d bytes, want %d", tc.reason, len(got), len(tc.want))
		}
	}
	all := m.run("logs", "many")
	if got := m.run("logs", "many", "--limit-bytes=100"); got != all[:100] {
		t.Errorf("--limit-bytes=100 gives %q", got)
	}
	stamped := m.run("logs", "many", "--timestamps")
	lines := strings.SplitAfter(stamped, "\n")
	stamp, _, _ := strings.Cut(lines[len(lines)/2], " ")
	if at, err := time.Parse(time.RFC3339Nano, stamp); err != nil || time.Since(at) > time.Hour {
		t.Errorf("line %q has no time", lines[len(lines)/2])
	}
	since := m.run("logs", "many", "--timestamps", "--since-time="+stamp)
	if from := strings.Index(stamped, "\n"+stamp+" ") + 1; since != stamped[from:] {
		t.Errorf("--since-time=%s gives %d bytes, want %d", stamp, len(since), len(stamped)-from)
	}
	if got := m.run("logs", "many", "--since=1h"); got != all {
		t.Errorf("--since=1h gives %d bytes, want %d", len(got), len(all))
	}
}

func TestLogsOfOddOutput(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	cases := map[string]struct{ reason, script, want string }{
		"huge":    {"a line of a megabyte stays one line", `head -c 1000000 /dev/zero | tr '\0' x; echo; echo next`, strings.Repeat("x", 1000000) + "\nnext\n"},
		"partial": {"what has no newline at the end is there too", `printf 'one\ntwo'`, "one\ntwo"},
		"binary":  {"bytes are not text", `printf 'a\0b\377\376\033[1mc\n\n'`, "a\x00b\xff\xfe\x1b[1mc\n\n"},
		"nothing": {"no output is no error", `true`, ""},
	}
	for name, tc := range cases {
		m.manifest(name+".yaml", once(name, tc.script))
	}
	for name, tc := range cases {
		m.await(name, "succeeded", succeeded)
		if got := m.run("logs", name); got != tc.want {
			t.Errorf("%s: log of %s has %d bytes, want %d", tc.reason, name, len(got), len(tc.want))
		}
	}
}

func TestLogsOfSeveral(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	m.manifest("two.yaml", `apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  restartPolicy: OnFailure
  initContainers:
  - {name: init, image: demo/busybox:1, command: [echo, from init]}
  containers:
  - {name: a, image: demo/busybox:1, command: [sh, -c, "echo out; echo err >&2"]}
  - {name: b, image: demo/busybox:1, command: [sh, -c, "[ -e /dev/shm/again ] && exec echo second; touch /dev/shm/again; echo first; exit 1"]}
`)
	m.await("two", "succeeded", succeeded)
	if got := m.run("logs", "two", "-c", "a"); got != "out\nerr\n" && got != "err\nout\n" {
		t.Errorf("both streams: %q", got)
	}
	for _, args := range [][]string{{"two"}, {"-l", "app=two"}} {
		got := m.run(append([]string{"logs", "--all-containers", "--prefix", "-f"}, args...)...)
		for _, want := range []string{"[pod/two-node/init] from init\n", "[pod/two-node/a] out\n", "[pod/two-node/a] err\n", "[pod/two-node/b] second\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in:\n%s", want, got)
			}
		}
	}
	if got := m.run("logs", "two", "-c", "b", "--previous"); got != "first\n" {
		t.Errorf("--previous: %q, want the instance before the restart", got)
	}
	for _, tc := range []struct {
		reason, want string
		args         []string
	}{
		{"there was no instance before", `previous terminated container "a" in pod "two-node" not found`, []string{"two", "-c", "a", "-p"}},
		{"no pod has the label", "no pod in namespace", []string{"-l", "app=three"}},
		{"a pod or a selector is needed", "name one pod, or select some with -l", nil},
		{"a time is a time", "sinceTime", []string{"two", "--since-time=yesterday"}},
	} {
		if _, err := m.try(append([]string{"logs"}, tc.args...)...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.reason, err, tc.want)
		}
	}
}

// A container prints numbers as fast as it can while agent after agent is killed:
// each number is in the log, once or more, in order but for repetitions.
func TestNoLogLineIsLost(t *testing.T) {
	const kills, block = 20, 10000
	m := newMachine(t, "containerLogMaxSize: 100Gi", "")
	m.start()
	m.manifest("counter.yaml", once("counter", fmt.Sprintf("i=0; until [ -e /stop ]; do seq $((i*%[1]d+1)) $((i*%[1]d+%[1]d)); i=$((i+1)); done", block)))
	m.await("counter", "running", ready)
	for range kills {
		m.kill()
		m.start()
	}
	// It fails if the container has ended; one that ends at once takes the command along.
	if _, err := m.try("exec", "counter", "--", "touch", "/stop"); err != nil && !strings.Contains(err.Error(), "exit code 137") {
		t.Fatal(err)
	}
	pod := m.await("counter", "succeeded", succeeded)
	f, err := os.Open(fmt.Sprintf("%s/log/pods/default_counter-node_%s/c/0.log", m.dir, pod.UID))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	next, repeated := 1, 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 4 || f[1] != "stdout" || f[2] != "F" {
			t.Fatalf("torn line %q", lines.Text())
		}
		switch n, err := strconv.Atoi(f[3]); {
		case err != nil || n < 1 || n > next:
			t.Fatalf("line %q where number %d is due", lines.Text(), next)
		case n == next:
			next++
		default:
			repeated++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if printed := next - 1; printed == 0 || printed%block != 0 {
		t.Errorf("the last number in the log is %d, which does not end a block", printed)
	}
	t.Logf("%d numbers, %d repeated", next-1, repeated)
}

// A log directory on a full disk costs lines, not the container and not the agent;
// when there is room again the log goes on.
func TestLogsOnAFullDisk(t *testing.T) {
	m := newMachine(t, "containerLogMaxSize: 1Gi", "")
	disk := m.dir + "/log"
	if err := os.MkdirAll(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	m.must("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk)
	t.Cleanup(func() { m.must("umount", "-l", disk) }) // the agent still has files open
	m.start()
	m.manifest("flood.yaml", once("flood", "seq 1 200000; touch /printed; until [ -e /go ]; do sleep 0.1; done; echo back"))
	pod := m.await("flood", "ready", ready)
	m.eventually("the container got rid of all its output", func() error {
		_, err := m.try("exec", "flood", "--", "ls", "/printed")
		return err
	})
	path := fmt.Sprintf("%s/pods/default_flood-node_%s/c/0.log", disk, pod.UID)
	if err := os.Remove(path); err != nil { // someone makes room
		t.Fatal(err)
	}
	m.run("exec", "flood", "--", "touch", "/go")
	m.await("flood", "succeeded", succeeded)
	if got := m.run("logs", "flood"); got != "back\n" {
		t.Errorf("log after the disk had room again ends with %q", got[max(0, len(got)-100):])
	}
	if err := in(m.agentLog(), "container log cannot be written"); err != nil {
		t.Error(errors.New("the agent did not say that lines were lost"))
	}
}

func (m *machine) agentLog() string {
	m.t.Helper()
	data, err := os.ReadFile(m.dir + "/agent.log")
	if err != nil {
		m.t.Fatal(err)
	}
	return string(data)
}
