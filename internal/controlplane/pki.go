package controlplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// life is how long what the authority signs is valid, unless told otherwise.
const life = 365 * 24 * time.Hour

// authority signs everything of one control plane.
type authority struct {
	dir  string // where its files are
	cert *x509.Certificate
	key  crypto.Signer
}

// pair is a certificate and its key as PEM.
type pair struct{ cert, key []byte }

// openAuthority reads the authority in dir, or makes one.
func openAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir}
	certPEM, err := os.ReadFile(a.path("ca.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return a, a.create()
	}
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(a.path("ca.key"))
	if err != nil {
		return nil, err
	}
	if a.cert, err = parseCert(certPEM); err != nil {
		return nil, fmt.Errorf("read %s: %w", a.path("ca.crt"), err)
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, fmt.Errorf("read %s: no PEM in it", a.path("ca.key"))
	}
	a.key, err = x509.ParseECPrivateKey(block.Bytes)
	return a, err
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// create makes the authority, and the key that signs service account tokens.
func (a *authority) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	a.key = key
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "nodeagent-test-ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	ca, err := a.sign(template, template, key, life)
	if err != nil {
		return err
	}
	if a.cert, err = parseCert(ca.cert); err != nil {
		return err
	}
	tokens, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tokensPEM, err := keyPEM(tokens)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(a.path("sa.key"), tokensPEM, 0o600), a.write("ca", ca))
}

// serving signs a server's certificate for hosts, which are names or addresses.
func (a *authority) serving(hosts ...string) (pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return a.issue(template, life)
}

// client signs a client's certificate.
func (a *authority) client(user string, groups []string, life time.Duration) (pair, error) {
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, life)
}

func (a *authority) issue(template *x509.Certificate, life time.Duration) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	return a.sign(template, a.cert, key, life)
}

func (a *authority) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, life time.Duration) (pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return pair{}, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-2 * time.Hour) // tests may look from a clock that is off
	template.NotAfter = time.Now().Add(life)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign certificate of %s: %w", template.Subject.CommonName, err)
	}
	encoded, err := keyPEM(key)
	return pair{cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: encoded}, err
}

// write puts p into name.crt and name.key.
func (a *authority) write(name string, p pair) error {
	return errors.Join(os.WriteFile(a.path(name+".crt"), p.cert, 0o644), os.WriteFile(a.path(name+".key"), p.key, 0o600))
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM in it")
	}
	return x509.ParseCertificate(block.Bytes)
}
