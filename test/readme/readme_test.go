//go:build integration

package readme

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience bounds how long a step may take, building all tools included.
const patience = 10 * time.Minute

const repo = "../.."

// shows is what a command's output must match, by the beginning of the command.
func shows() map[string][]string {
	return map[string][]string{
		"bin/nodeagent get pods -o wide":          {`guaranteed-\S+ +2/2 +Running .*Guaranteed`, `burstable-\S+ +2/2 +Running .*Burstable`, `besteffort-\S+ +1/1 +Running .*BestEffort`},
		"bin/nodeagent describe pod burstable":    {`(?s)prepare:.*sidecar:.*main:`, `Events:`},
		"bin/nodeagent cgroups":                   {`kubepods`, `default/guaranteed-`, `burstable`, `besteffort`, `THROTTLED`},
		"bin/nodeagent inspect guaranteed":        {`net +\d+ +pod +(web, reader|reader, web)\n`, `pid +\d+ +container +web\n`, `max 50m`, `httpd`},
		"bin/nodeagent inspect --pid $$":          {`Pod: +<none>`, `net +\d+ `},
		"bin/nodeagent doctor --runtime-bin-dir=": {`runc +ok`, `cni plugins +ok`},
	}
}

// TestFirstFiveMinutes types what the README says.
func TestFirstFiveMinutes(t *testing.T) {
	text, err := os.ReadFile(repo + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := firstFiveMinutes(string(text))
	if len(commands) < 3 || commands[0] != "make run" || commands[len(commands)-1] != "make down" {
		t.Fatalf("the first five minutes go from `make run` to `make down`, not %q", commands)
	}
	agent := open(t, repo, "make run")
	t.Cleanup(func() {
		_ = agent.master.Close() // hangs up on an agent that still runs
		if out, err := shell(repo, "make down").CombinedOutput(); err != nil {
			t.Errorf("make down: %v\n%s", err, out)
		}
	})
	awaitTable(t, agent)
	for _, c := range commands[1 : len(commands)-1] {
		t.Run(c, func(t *testing.T) { follow(t, c) })
	}
	agent.write(t, "\x03")
	_ = agent.wait(t) // make ends by the signal that it got, too
	if !strings.Contains(agent.text(), "The pods go on") {
		t.Errorf("Ctrl-C does not say that the pods go on:\n%s", agent.text())
	}
	if len(kubepods(t)) == 0 {
		t.Error("Ctrl-C ended the pods")
	}
	if out, err := shell(repo, "make down").CombinedOutput(); err != nil {
		t.Errorf("make down: %v\n%s", err, out)
	}
	for _, left := range traces(t) {
		t.Errorf("left behind after make down: %s", left)
	}
}

// firstFiveMinutes are the commands of that section, without their comments.
func firstFiveMinutes(readme string) []string {
	_, section, _ := strings.Cut(readme, "## First five minutes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var out []string
	inside := false
	for line := range strings.Lines(section) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside
		case inside:
			command, _, _ := strings.Cut(line, " # ")
			out = append(out, strings.TrimSpace(command))
		}
	}
	return out
}

// awaitTable waits until the live table has shown every demo pod running, with
// its address, class and cgroup.
func awaitTable(t *testing.T, agent *terminal) {
	t.Helper()
	var missing string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		missing = ""
		for _, row := range []string{
			`guaranteed-\S+ +2/2 +Running .*10\.88\.\S+ +Guaranteed +/kubepods`,
			`burstable-\S+ +2/2 +Running .*10\.88\.\S+ +Burstable +/kubepods`,
			`besteffort-\S+ +1/1 +Running .*10\.88\.\S+ +BestEffort +/kubepods`,
		} {
			if !regexp.MustCompile(row).MatchString(agent.text()) {
				missing = row
			}
		}
		if missing == "" {
			return
		}
		select {
		case err := <-agent.ended:
			t.Fatalf("make run ended: %v\n%s", err, agent.text())
		default:
		}
	}
	t.Fatalf("no row like %q in the live table:\n%s", missing, agent.text())
}

// follow runs one command of the README and looks at what it shows.
func follow(t *testing.T, command string) {
	switch {
	case strings.HasPrefix(command, "bin/nodeagent logs guaranteed -c reader -f"):
		followLog(t, command)
	case strings.HasPrefix(command, "bin/nodeagent exec -it guaranteed -- sh"):
		term := open(t, repo, command)
		defer term.master.Close()
		term.write(t, "hostname; wget -q -O - http://localhost:8080/; exit\n")
		if err := term.wait(t); err != nil {
			t.Errorf("%v\n%s", err, term.text())
		}
		if !strings.Contains(term.text(), "hello from guaranteed-") {
			t.Errorf("the shell is not in the pod:\n%s", term.text())
		}
	default:
		out, err := shell(repo, command).CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		known := false
		for begin, wants := range shows() {
			if !strings.HasPrefix(command, begin) {
				continue
			}
			known = true
			for _, want := range wants {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		}
		if !known {
			t.Error("the README has a command that this test does not know")
		}
	}
}

// followLog reads a line of a log that goes on, and stops it as a user would.
func followLog(t *testing.T, command string) {
	cmd := shell(repo, "exec "+command)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Only an agent that hangs is ended by the clock.
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
		t.Error(err)
	}
	if readErr != nil || line == "" {
		t.Errorf("no line of the log: %q, %v", line, readErr)
	}
}

// kubepods are the directories of the hierarchy.
func kubepods(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods*", "/sys/fs/cgroup/*/kubepods*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// traces are what a user would find of the agent on this machine.
func traces(t *testing.T) []string {
	t.Helper()
	left := kubepods(t)
	for _, path := range []string{"/run/nodeagent", "/var/lib/nodeagent", "/etc/cni/net.d/10-nodeagent.conflist", "/var/log/pods", "/var/log/containers"} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			left = append(left, path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/nodeagent/") {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if cmdline, err := os.ReadFile(p); err == nil && slices.ContainsFunc(strings.Split(string(cmdline), "\x00"), func(arg string) bool {
			return strings.HasPrefix(arg, "/run/nodeagent/") || strings.HasPrefix(arg, "/var/lib/nodeagent/")
		}) {
			left = append(left, "process "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return left
}
