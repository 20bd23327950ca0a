package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// issue makes a certificate and its key for a request, in PEM.
func issue(t *testing.T, r *x509.CertificateRequest, from, until time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: r.Subject, DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k})
}

func noon() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) }

func TestRenewal(t *testing.T) {
	base := NodeRequest("n1", []string{"n1"}, []net.IP{net.ParseIP("10.0.0.1")})
	cert := func(r *x509.CertificateRequest) *x509.Certificate {
		c, k := issue(t, r, noon(), noon().Add(10*time.Hour))
		pair, err := Parse(c, k)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	cases := map[string]struct {
		reason string
		cert   *x509.Certificate
		want   *x509.CertificateRequest
		jitter float64
		at     time.Time
	}{
		"None":     {"there is none yet", nil, base, 0, time.Time{}},
		"Earliest": {"at 70 % of its life", cert(base), base, 0, noon().Add(7 * time.Hour)},
		"Latest":   {"at 90 %", cert(base), base, 1, noon().Add(9 * time.Hour)},
		"Name":     {"the node has another name", cert(base), NodeRequest("n2", nil, nil), 0, time.Time{}},
		"Address":  {"the node has another address", cert(base), NodeRequest("n1", nil, []net.IP{net.ParseIP("10.0.0.2")}), 0, time.Time{}},
		"Fewer":    {"an address that is gone does no harm", cert(base), NodeRequest("n1", nil, nil), 0, noon().Add(7 * time.Hour)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := renewal(tc.cert, tc.want, tc.jitter).Round(time.Second); !got.Equal(tc.at) {
				t.Errorf("%s: got %s, want %s", tc.reason, got, tc.at)
			}
		})
	}
}

func TestStore(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "pki"), Name: "kubelet-client"}
	if cert, err := s.Load(); cert != nil || err != nil {
		t.Fatalf("an empty store: %v, %v", cert, err)
	}
	r := NodeRequest("n1", nil, nil)
	var last *tls.Certificate
	for i := range 4 {
		c, k := issue(t, r, noon().Add(time.Duration(i)*time.Hour), noon().Add(24*time.Hour))
		var err error
		if last, err = s.Save(c, k, noon().Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Load()
	if err != nil || !got.Leaf.Equal(last.Leaf) {
		t.Errorf("the newest does not count: %v, %v", got, err)
	}
	link, err := os.Readlink(s.Current())
	if err != nil || link != "kubelet-client-2026-11-25-15-00-00.pem" {
		t.Errorf("the link names %s, %v", link, err)
	}
	info, err := os.Stat(s.Current())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	files, err := os.ReadDir(s.Dir)
	if err != nil || len(files) != 3 {
		t.Errorf("%d files, want the link, what it names and the one before: %v", len(files), err)
	}
	if _, err := s.Save([]byte("no"), []byte("no"), noon()); err == nil {
		t.Error("saved what is no certificate")
	}
}

func TestAnswer(t *testing.T) {
	csr := func(kind certificatesv1.RequestConditionType, cert string) *certificatesv1.CertificateSigningRequest {
		c := &certificatesv1.CertificateSigningRequest{}
		c.Status.Certificate = []byte(cert)
		if kind != "" {
			c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: kind, Status: corev1.ConditionTrue}}
		}
		return c
	}
	cases := map[string]struct {
		reason  string
		csr     *certificatesv1.CertificateSigningRequest
		cert    string
		refused bool
	}{
		"Pending":  {"nobody has looked at it", csr("", ""), "", false},
		"Approved": {"but not signed", csr(certificatesv1.CertificateApproved, ""), "", false},
		"Issued":   {"", csr(certificatesv1.CertificateApproved, "pem"), "pem", false},
		"Denied":   {"", csr(certificatesv1.CertificateDenied, ""), "", true},
		"Failed":   {"", csr(certificatesv1.CertificateFailed, ""), "", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cert, err := answer(tc.csr)
			if string(cert) != tc.cert || (err != nil) != tc.refused {
				t.Errorf("%s: %q, %v", tc.reason, cert, err)
			}
		})
	}
}
