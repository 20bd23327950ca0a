package podsync

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// record is what is known of a pod and has no other home. It is kept in a file
// per pod under the state directory, so it lasts as long as the containers it
// speaks of: until the pod is forgotten or the machine restarts. It is written
// in one piece but not synced, since a machine that loses it has lost the
// containers, too.
type record struct {
	Pod     *corev1.Pod
	Status  corev1.PodStatus
	Started time.Time
	End     *End           `json:",omitempty"`
	Gone    bool           `json:",omitempty"` // no source has it, or had it once
	Series  map[string]int `json:",omitempty"`
	// Restarts are those that the API server knew of when there was no record.
	Restarts map[string]int     `json:",omitempty"`
	Replace  map[string]Replace `json:",omitempty"`
	// Sized is what the pod's cgroup was set to last, nil when that is its grant.
	Sized    *Grant   `json:",omitempty"`
	Resizing *int64   `json:",omitempty"` // generation of the newest resize, until it is over
	Pending  *Pending `json:",omitempty"`
	// By container ID: hooks that are over.
	PostStarted, PreStopped map[string]bool `json:",omitempty"`
}

// records are the records of all pods in one directory.
type records struct{ dir string }

func (r records) path(uid types.UID) string { return filepath.Join(r.dir, string(uid)+".json") }

// load returns nil when there is no record. A record that cannot be read is set
// aside and counts as none: all in it can be found out again, less well.
func (r records) load(uid types.UID) (*record, error) {
	data, err := os.ReadFile(r.path(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record of pod %s: %w", uid, err)
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil || rec.Pod == nil {
		err = errors.Join(err, os.Rename(r.path(uid), r.path(uid)+".broken"))
		return nil, fmt.Errorf("read record of pod %s, which is set aside: %w", uid, err)
	}
	return &rec, nil
}

func (r records) save(uid types.UID, rec record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode record of pod %s: %w", uid, err)
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("make record directory: %w", err)
	}
	next := r.path(uid) + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("write record of pod %s: %w", uid, err)
	}
	if err := os.Rename(next, r.path(uid)); err != nil {
		return fmt.Errorf("write record of pod %s: %w", uid, err)
	}
	return nil
}

func (r records) remove(uid types.UID) error {
	if err := os.Remove(r.path(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of pod %s: %w", uid, err)
	}
	return nil
}

// list names the pods that have a record.
func (r records) list() ([]types.UID, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if uid, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			uids = append(uids, types.UID(uid))
		}
	}
	return uids, nil
}

// podDir is a pod's directory under the root directory, or something in it.
func podDir(root string, uid types.UID, elem ...string) string {
	return filepath.Join(append([]string{root, "pods", string(uid)}, elem...)...)
}

// podDirs names the pods that have a directory.
func podDirs(root string) ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(root, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list pod directories: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if e.IsDir() {
			uids = append(uids, types.UID(e.Name()))
		}
	}
	return uids, nil
}

// Recorded are the pods that an earlier agent had and did not end, as their source
// had them at last.
func (p *Pool) Recorded() []*corev1.Pod {
	uids, err := p.cfg.records().list()
	if err != nil {
		p.cfg.Log.Error("records not read", "err", err)
	}
	var pods []*corev1.Pod
	for _, uid := range uids {
		rec, err := p.cfg.records().load(uid)
		switch {
		case err != nil:
			p.cfg.Log.Error("record not read", "uid", uid, "err", err)
		case rec != nil && !rec.Gone:
			pods = append(pods, rec.Pod)
		}
	}
	return pods
}
