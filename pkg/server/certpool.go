package server

import (
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// caFile is a file of CA certificates that may be replaced at any time. One that
// turns unreadable leaves those it had in force.
type caFile struct {
	path string

	mu    sync.Mutex // guards all below
	pool  *x509.CertPool
	mtime time.Time
	size  int64
}

// certs are the certificates of the file as it is now.
func (f *caFile) certs() (*x509.CertPool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.pool != nil && info.ModTime().Equal(f.mtime) && info.Size() == f.size {
		return f.pool, nil
	}
	if err == nil {
		err = f.read(info)
	}
	if err != nil && f.pool == nil {
		return nil, fmt.Errorf("read client CA: %w", err)
	}
	return f.pool, nil
}

// read needs mu.
func (f *caFile) read(info os.FileInfo) error {
	data, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return fmt.Errorf("%s holds no certificate in PEM form", f.path)
	}
	f.pool, f.mtime, f.size = pool, info.ModTime(), info.Size()
	return nil
}
