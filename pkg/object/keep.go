package object

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// keeper writes down what is known, for an agent that starts while the API server
// is away: containers of pods that run are restarted then, too. It keeps secrets
// only in memory, where the next boot finds nothing.
type keeper struct {
	dir string // empty keeps nothing
	log *slog.Logger
}

func (k keeper) path(of key) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{string(of.kind), of.namespace, of.fields, of.labels}))
	return filepath.Join(k.dir, hex.EncodeToString(sum[:16])+".json")
}

// inMemory says whether nothing of a directory is ever on a disk, but for swap.
func inMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

// save replaces what was kept of a watch.
func (k keeper) save(of key, items map[string]metav1.Object) {
	if k.dir == "" {
		return
	}
	if err := k.write(of, items); err != nil {
		k.log.Warn("object is not kept for a new agent", "kind", of.kind, "namespace", of.namespace, "selector", of.fields, "err", err)
	}
}

func (k keeper) write(of key, items map[string]metav1.Object) error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if of.kind == secrets && !inMemory(k.dir) {
		return nil
	}
	data, err := json.Marshal(slices.Collect(maps.Values(items)))
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(k.dir, "*.new") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), k.path(of))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// load returns what was kept of a watch, nil if nothing was.
func (k keeper) load(of key) map[string]metav1.Object {
	if k.dir == "" {
		return nil
	}
	data, err := os.ReadFile(k.path(of))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var items map[string]metav1.Object
	if err == nil {
		items, err = decode(of.kind, data)
	}
	if err != nil {
		k.log.Warn("what an earlier agent kept is not used", "kind", of.kind, "namespace", of.namespace, "selector", of.fields, "err", err)
		return nil
	}
	return items
}

func decode(k kind, data []byte) (map[string]metav1.Object, error) {
	switch k {
	case configMaps:
		return decodeList[corev1.ConfigMap](data)
	case secrets:
		return decodeList[corev1.Secret](data)
	case services:
		return decodeList[corev1.Service](data)
	case trustBundles:
		return decodeList[certificatesv1.ClusterTrustBundle](data)
	default:
		return nil, fmt.Errorf("unknown kind %q", k)
	}
}

func decodeList[T any, P interface {
	*T
	metav1.Object
}](data []byte) (map[string]metav1.Object, error) {
	var list []T
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	items := make(map[string]metav1.Object, len(list))
	for i := range list {
		o := P(&list[i])
		items[o.GetName()] = o
	}
	return items, nil
}

// drop forgets a watch.
func (k keeper) drop(of key) {
	if k.dir == "" {
		return
	}
	if err := os.Remove(k.path(of)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("kept object not removed", "err", err)
	}
}

// tidy removes what is kept of other watches than these.
func (k keeper) tidy(wanted []key) {
	if k.dir == "" {
		return
	}
	keep := map[string]bool{}
	for _, w := range wanted {
		keep[filepath.Base(k.path(w))] = true
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("kept objects not listed", "err", err)
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(k.dir, e.Name())); err != nil {
			k.log.Warn("kept object not removed", "err", err)
		}
	}
}
