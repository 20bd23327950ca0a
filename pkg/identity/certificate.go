package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	certificatesclient "k8s.io/client-go/kubernetes/typed/certificates/v1"
)

const (
	// firstRetry doubles up to lastRetry while no certificate can be had.
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
	// noTemplate is how often it is looked whether it is known by now what a
	// certificate should say.
	noTemplate = 10 * time.Second
)

// Config is all that a Certificate needs. Every field is required unless it says so.
type Config struct {
	Store  Store
	Signer string
	// Initial is used until there is one in the store, or a newer one; it may be nil.
	Initial *tls.Certificate
	// Template is what the certificate should say, nil while that is not known.
	Template func() *x509.CertificateRequest
	// Requests are made as whom the current certificate makes us; current is nil
	// when it cannot be used.
	Requests func(current *tls.Certificate) certificatesclient.CertificateSigningRequestInterface
	// Changed is called when there is a new one; before is nil for the first. It may
	// be nil itself.
	Changed func(before *tls.Certificate)
	Log     *slog.Logger
}

// Certificate is kept valid.
type Certificate struct {
	Config
	current atomic.Pointer[tls.Certificate]
	kick    chan struct{} // capacity 1
	ready   chan struct{}
	once    sync.Once // closes ready
}

// New reads what is there; see Run.
func New(cfg Config) (*Certificate, error) {
	c := &Certificate{Config: cfg, kick: make(chan struct{}, 1), ready: make(chan struct{})}
	stored, err := cfg.Store.Load()
	if err != nil { // a new one takes its place
		cfg.Log.Warn("certificate cannot be used", "err", err)
	}
	if first := newer(stored, cfg.Initial); first != nil {
		c.use(first)
	}
	return c, nil
}

// newer is the certificate that was issued last.
func newer(a, b *tls.Certificate) *tls.Certificate {
	if a == nil || b != nil && b.Leaf.NotBefore.After(a.Leaf.NotBefore) {
		return b
	}
	return a
}

func (c *Certificate) use(cert *tls.Certificate) {
	c.current.Store(cert)
	c.once.Do(func() { close(c.ready) })
}

// Current is the newest certificate, nil while there has been none.
func (c *Certificate) Current() *tls.Certificate { return c.current.Load() }

// Ready is closed once there is a certificate.
func (c *Certificate) Ready() <-chan struct{} { return c.ready }

// Kick says that what the certificate should say may have changed. It never blocks.
func (c *Certificate) Kick() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Serve is for the listener of a server.
func (c *Certificate) Serve(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := c.Current(); cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("no serving certificate yet: its request has to be approved (kubectl get csr)")
}

// Run renews the certificate before it ends, until ctx does.
func (c *Certificate) Run(ctx context.Context) error {
	retry := firstRetry
	jitter := rand.Float64() // nodes that have started together shall not ask together
	for {
		template := c.Template()
		wait := noTemplate
		if template != nil {
			wait = time.Until(renewal(leaf(c.Current()), template, jitter))
		}
		if wait <= 0 {
			err := c.renew(ctx, template)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				c.Log.Warn("certificate not renewed", "signer", c.Signer, "err", err)
				wait, retry = retry, min(2*retry, lastRetry)
			default:
				retry, jitter = firstRetry, rand.Float64()
				continue
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-c.kick:
		case <-t.C:
		}
		t.Stop()
	}
}

// renew gets a new certificate, unless what it should say changes meanwhile.
func (c *Certificate) renew(ctx context.Context, template *x509.CertificateRequest) error {
	current := c.Current()
	if current != nil && (current.Leaf.Subject.CommonName != template.Subject.CommonName || time.Now().After(current.Leaf.NotAfter)) {
		current = nil
	}
	asking, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { c.cancelOutdated(asking, template, cancel) })
	cert, key, err := c.sign(asking, c.Requests(current), template)
	outdated := asking.Err() != nil
	cancel()
	watcher.Wait()
	if err != nil {
		if outdated {
			return nil
		}
		return err
	}
	pair, err := c.Store.Save(cert, key, time.Now())
	if pair == nil {
		return err
	}
	before := c.Current()
	c.use(pair)
	c.Log.Info("certificate renewed", "signer", c.Signer, "until", pair.Leaf.NotAfter)
	if c.Changed != nil {
		c.Changed(before)
	}
	if renewal(pair.Leaf, template, 1).Before(time.Now()) { // asking again at once would give the same
		err = errors.Join(err, errors.New("the certificate as signed does not say what was asked for, or has nearly run out: is this machine's clock right?"))
	}
	return err
}

// cancelOutdated ends a request that is no longer what it should be: a pending one
// for the addresses of yesterday is of no use.
func (c *Certificate) cancelOutdated(ctx context.Context, template *x509.CertificateRequest, cancel func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
			if now := c.Template(); now == nil || !sameRequest(now, template) {
				cancel()
				return
			}
		}
	}
}

func leaf(c *tls.Certificate) *x509.Certificate {
	if c == nil {
		return nil
	}
	return c.Leaf
}

// renewal is when a new certificate is to be asked for: in the last third of its
// life or so, and at once, the zero time, when it does not say what it should.
func renewal(cert *x509.Certificate, template *x509.CertificateRequest, jitter float64) time.Time {
	if cert == nil || cert.Subject.CommonName != template.Subject.CommonName || !slices.Equal(cert.Subject.Organization, template.Subject.Organization) {
		return time.Time{}
	}
	for _, name := range template.DNSNames {
		if !slices.Contains(cert.DNSNames, name) {
			return time.Time{}
		}
	}
	for _, ip := range template.IPAddresses {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return time.Time{}
		}
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	return cert.NotBefore.Add(time.Duration(float64(life) * (0.7 + 0.2*jitter)))
}

func sameRequest(a, b *x509.CertificateRequest) bool {
	return a.Subject.String() == b.Subject.String() && slices.Equal(a.DNSNames, b.DNSNames) &&
		slices.EqualFunc(a.IPAddresses, b.IPAddresses, net.IP.Equal)
}

// NodeRequest is a certificate request of a node, with the addresses at which it
// serves, or none for a client.
func NodeRequest(node string, names []string, ips []net.IP) *x509.CertificateRequest {
	return &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
		DNSNames: names, IPAddresses: ips,
	}
}
