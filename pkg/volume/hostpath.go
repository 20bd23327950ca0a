package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// onHost calls f where the paths of the machine are what they say.
func (s *Set) onHost(f func() error) error {
	if s.OnHost == nil {
		return f()
	}
	return s.OnHost(f)
}

func (s *Set) hostPath(h *corev1.HostPathVolumeSource) (m Mounted, err error) {
	err = s.onHost(func() (err error) {
		m, err = hostPath(h)
		return err
	})
	return m, err
}

// hostPath checks, and where its type says so makes, a path of the machine.
func hostPath(h *corev1.HostPathVolumeSource) (Mounted, error) {
	if !filepath.IsAbs(h.Path) {
		return Mounted{}, fmt.Errorf("hostPath %q is not absolute", h.Path)
	}
	kind := ptr.Deref(h.Type, corev1.HostPathUnset)
	info, err := os.Stat(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeHostPath(h.Path, kind); err == nil {
			info, err = os.Stat(h.Path)
		}
	}
	if err != nil {
		return Mounted{}, fmt.Errorf("hostPath type check failed: %w", err)
	}
	if !matches(info.Mode(), kind) {
		return Mounted{}, fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, kind)
	}
	return Mounted{HostPath: h.Path}, nil
}

func makeHostPath(path string, kind corev1.HostPathType) error {
	switch kind {
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
		return os.MkdirAll(path, 0o755)
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	default:
		return fmt.Errorf("%s is not a %s: %w", path, kind, fs.ErrNotExist)
	}
}

func matches(mode fs.FileMode, kind corev1.HostPathType) bool {
	switch kind {
	case corev1.HostPathUnset:
		return true
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return mode.IsRegular()
	case corev1.HostPathSocket:
		return mode&fs.ModeSocket != 0
	case corev1.HostPathCharDev:
		return mode&fs.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	default:
		return false
	}
}
