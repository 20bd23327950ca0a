package podsource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// offlineDelay gathers changes, so that a burst of them is written once.
const offlineDelay = time.Second

// Offline keeps the newest pods of an API server in a file, for a machine that
// starts without its link. See NewOffline.
type Offline struct {
	path string
	log  *slog.Logger
	wake chan struct{} // capacity 1

	mu   sync.Mutex // guards pods
	pods []*corev1.Pod
}

// NewOffline keeps pods in the file at path; nothing is written until Run.
func NewOffline(path string, log *slog.Logger) *Offline {
	return &Offline{path: path, log: log, wake: make(chan struct{}, 1)}
}

// Set takes the full list. The pods must not be changed afterwards.
func (o *Offline) Set(pods []*corev1.Pod) {
	o.mu.Lock()
	o.pods = pods
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Load reads what was kept; a file that is not there holds no pods.
func (o *Offline) Load() ([]*corev1.Pod, error) {
	data, err := os.ReadFile(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read offline pods: %w", err)
	}
	var pods []*corev1.Pod
	if err := json.Unmarshal(data, &pods); err != nil {
		return nil, fmt.Errorf("read offline pods from %s: %w", o.path, err)
	}
	return pods, nil
}

// Run writes until ctx ends.
func (o *Offline) Run(ctx context.Context) error {
	var last []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		}
		select {
		case <-ctx.Done():
		case <-time.After(offlineDelay):
		}
		data, err := o.encode()
		if err == nil && !bytes.Equal(data, last) {
			err = o.save(data)
		}
		if err != nil {
			o.log.Error("offline pods not written", "err", err)
			continue
		}
		last = data
	}
}

// encode leaves out what changes while a pod runs, but for how it ended.
func (o *Offline) encode() ([]byte, error) {
	o.mu.Lock()
	pods := o.pods
	o.mu.Unlock()
	kept := make([]*corev1.Pod, len(pods))
	for i, p := range pods {
		c := *p
		c.ResourceVersion = ""
		c.Status = corev1.PodStatus{StartTime: p.Status.StartTime}
		if ended := p.Status.Phase; ended == corev1.PodSucceeded || ended == corev1.PodFailed {
			c.Status.Phase, c.Status.Reason, c.Status.Message = ended, p.Status.Reason, p.Status.Message
		}
		kept[i] = &c
	}
	return json.Marshal(kept)
}

// save replaces the file in one piece that outlives a power cut.
func (o *Offline) save(data []byte) error {
	f, err := os.OpenFile(o.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(o.path+".new", o.path)
}
