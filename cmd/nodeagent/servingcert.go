package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"sync"
	"time"
)

// certificateSource is what the API's listener shows to a client.
type certificateSource func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// servingCertificate is the configured one, or one that nobody has signed: an API
// server takes that too, unless it was given a CA for its nodes.
func (a *agent) servingCertificate() (certificateSource, error) {
	k := a.cfg.Kubelet
	if a.serving != nil {
		return a.serving.Serve, nil
	}
	if k.TLSCertFile != "" {
		f := &certificateFile{cert: k.TLSCertFile, key: k.TLSPrivateKeyFile}
		if _, err := f.get(nil); err != nil {
			return nil, err
		}
		return f.get, nil
	}
	cert, err := selfSigned(a.cfg.Agent.NodeName, a.nodeIPs(), time.Now())
	if err != nil {
		return nil, err
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }, nil
}

// certificateFile is a certificate whose files may be replaced at any time. While
// they do not fit together, the one they held before is shown.
type certificateFile struct {
	cert, key string

	mu    sync.Mutex // guards all below
	last  *tls.Certificate
	state [2]string // of both files when last was read
}

func (f *certificateFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state := [2]string{fileState(f.cert), fileState(f.key)}
	if f.last != nil && state == f.state {
		return f.last, nil
	}
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	switch {
	case err == nil:
		f.last, f.state = &cert, state
	case f.last == nil:
		return nil, fmt.Errorf("read serving certificate: %w", err)
	}
	return f.last, nil
}

// fileState differs when a file has been written or replaced.
func fileState(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// selfSignedLife is the kubelet's, too.
const selfSignedLife = 365 * 24 * time.Hour

// selfSigned makes a certificate for this node's name and addresses.
func selfSigned(name string, ips []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make serving certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.Add(selfSignedLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{name},
	}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make serving certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
