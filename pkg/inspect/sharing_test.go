package inspect

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSharedWith(t *testing.T) {
	proc := t.TempDir()
	writeProc(t, proc, 1, map[string]string{"net": "net:[1]", "pid": "pid:[2]", "uts": "uts:[3]"})
	writeProc(t, proc, 10, map[string]string{"net": "net:[7]", "pid": "pid:[8]", "uts": "uts:[3]"})
	writeProc(t, proc, 11, map[string]string{"net": "net:[7]", "pid": "pid:[9]", "uts": "uts:[3]"})
	r := Reader{ProcRoot: proc}
	p, err := r.Process(10)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.SharedWith(p)
	if err != nil {
		t.Fatal(err)
	}
	want := []Sharing{
		{Type: "net", Inode: 7, Others: []int{11}},
		{Type: "uts", Inode: 3, Host: true},
		{Type: "pid", Inode: 8},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the network is the pod's, the hostname the machine's, the PIDs its own (-want +got):\n%s", d)
	}
}
