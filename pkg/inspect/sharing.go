package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
)

// Sharing is a namespace of one process and who else lives in it.
type Sharing struct {
	Type  string `json:"type"`
	Inode uint64 `json:"inode"`
	// Host says that it is the machine's own namespace, whose many inhabitants are
	// not listed.
	Host bool `json:"host,omitempty"`
	// Others are the other processes inside, by PID.
	Others []int `json:"others,omitempty"`
}

// SharedWith lists the namespaces of a process, each with the other processes of
// the machine that live in it. Processes that may not be looked at are left out.
func (r Reader) SharedWith(p Process) ([]Sharing, error) {
	host, err := r.Host()
	if err != nil {
		return nil, err
	}
	var out []Sharing
	for _, t := range Types() {
		if inode, known := p.Namespaces[t]; known {
			out = append(out, Sharing{Type: t, Inode: inode, Host: host.Namespaces[t] == inode})
		}
	}
	entries, err := os.ReadDir(r.ProcRoot)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == p.PID {
			continue // not a process, or the one in question
		}
		other, err := r.Process(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i := range out {
			if s := &out[i]; !s.Host && other.Namespaces[s.Type] == s.Inode {
				s.Others = append(s.Others, pid)
			}
		}
	}
	for i := range out {
		slices.Sort(out[i].Others)
	}
	return out, nil
}
