package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Store keeps one certificate, with its key, in the kubelet's way: each in a file
// of its own, NAME-TIME.pem, and a link to the one that counts, NAME-current.pem.
type Store struct {
	Dir, Name string
}

// keptFiles is how many certificates are kept: the one that counts and the one
// before, for whoever has just read the link.
const keptFiles = 2

// Current is the path of the link.
func (s Store) Current() string { return filepath.Join(s.Dir, s.Name+"-current.pem") }

// Load reads the certificate, nil when there is none.
func (s Store) Load() (*tls.Certificate, error) {
	data, err := os.ReadFile(s.Current())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	cert, err := Parse(data, data)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", s.Current(), err)
	}
	return cert, nil
}

// Parse reads a certificate and its key, in PEM.
func Parse(cert, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &pair, nil
}

// Save makes a certificate the one that counts. The file is complete, and on the
// disk, before the link names it.
func (s Store) Save(cert, key []byte, now time.Time) (*tls.Certificate, error) {
	pair, err := Parse(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate as signed: %w", err)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate directory: %w", err)
	}
	name := fmt.Sprintf("%s-%s.pem", s.Name, now.Format("2006-01-02-15-04-05"))
	path := filepath.Join(s.Dir, name)
	var data []byte
	for rest := cert; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		data = append(data, pem.EncodeToMemory(block)...)
	}
	if err := WriteFile(path, append(data, key...), 0o600); err != nil {
		return nil, err
	}
	link := s.Current() + ".new"
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a crash
		return nil, fmt.Errorf("certificate link: %w", err)
	}
	if err := os.Symlink(name, link); err != nil {
		return nil, fmt.Errorf("certificate link: %w", err)
	}
	if err := os.Rename(link, s.Current()); err != nil {
		return nil, fmt.Errorf("certificate link: %w", err)
	}
	return pair, errors.Join(syncDir(s.Dir), s.tidy(name))
}

// tidy removes what was replaced long ago.
func (s Store) tidy(current string) error {
	files, err := filepath.Glob(filepath.Join(s.Dir, s.Name+"-[0-9]*.pem"))
	if err != nil {
		return err
	}
	slices.Sort(files) // by time
	files = slices.DeleteFunc(files, func(f string) bool { return filepath.Base(f) == current })
	for len(files) >= keptFiles {
		if err := os.Remove(files[0]); err != nil {
			return fmt.Errorf("remove old certificate: %w", err)
		}
		files = files[1:]
	}
	return nil
}

// WriteFile replaces a file, so that it is there as a whole or not at all.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+strings.TrimPrefix(filepath.Base(path), ".")+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
