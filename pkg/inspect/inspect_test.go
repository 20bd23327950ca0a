package inspect

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCgroupPath(t *testing.T) {
	cases := map[string]struct {
		reason string
		file   string
		want   string
	}{
		"Unified": {
			reason: "on v2 there is one line",
			file:   "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-a.scope\n",
			want:   "/kubepods.slice/kubepods-pod1.slice/cri-containerd-a.scope",
		},
		"Hybrid": {
			reason: "on v1 the memory controller tells most, whatever its position",
			file:   "4:cpu,cpuacct:/other\n3:memory:/kubepods/pod1/a\n0::/\n",
			want:   "/kubepods/pod1/a",
		},
		"NoMemory": {
			reason: "without memory the first controller answers, not the empty unified tree",
			file:   "2:pids:/kubepods/pod1/a\n0::/\n",
			want:   "/kubepods/pod1/a",
		},
		"Empty": {reason: "nothing to say", file: "", want: ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := cgroupPath(tc.file); got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

func TestProcess(t *testing.T) {
	r := Reader{ProcRoot: "/proc"}
	p, err := r.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if p.Command == "" || p.Cgroup == "" || p.Namespaces["net"] == 0 || p.Namespaces["mnt"] == 0 {
		t.Errorf("incomplete: %+v", p)
	}
	if _, err := r.Process(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that does not exist: got %v, want fs.ErrNotExist", err)
	}
}

func TestGroupLeavesOutTheDead(t *testing.T) {
	g, err := Reader{ProcRoot: "/proc"}.Group("x", []int{os.Getpid(), 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Processes) != 1 {
		t.Errorf("got %d processes, want the living one", len(g.Processes))
	}
}

func TestShare(t *testing.T) {
	proc := t.TempDir()
	writeProc(t, proc, 1, map[string]string{"net": "net:[1]", "pid": "pid:[2]"})
	writeProc(t, proc, 10, map[string]string{"net": "net:[7]", "pid": "pid:[8]"})
	writeProc(t, proc, 11, map[string]string{"net": "net:[7]", "pid": "pid:[2]"})
	r := Reader{ProcRoot: proc}
	a, err := r.Group("a", []int{10})
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Group("b", []int{11})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Share([]Group{a, b})
	if err != nil {
		t.Fatal(err)
	}
	want := []Namespace{
		{Type: "net", Inode: 7, Groups: []string{"a", "b"}},
		{Type: "pid", Inode: 8, Groups: []string{"a"}},
		{Type: "pid", Inode: 2, Host: true, Groups: []string{"b"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("containers of a pod share the network and not the process namespace (-want +got):\n%s", d)
	}
}

func writeProc(t *testing.T, root string, pid int, ns map[string]string) {
	t.Helper()
	dir := filepath.Join(root, strconv.Itoa(pid))
	if err := os.MkdirAll(dir+"/ns", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range ns {
		if err := os.Symlink(target, dir+"/ns/"+name); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{"cgroup": "0::/\n", "cmdline": "x\x00", "oom_score_adj": "0\n"} {
		if err := os.WriteFile(dir+"/"+name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
