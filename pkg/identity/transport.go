package identity

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/connrotation"
)

// Client makes HTTP clients that show the newest certificate. Each has connections
// of its own.
type Client struct {
	// Certificate is nil for the credentials of the configuration.
	Certificate *Certificate
	dialers     []*connrotation.Dialer
}

// HTTP is for use with rc. Until there is a certificate its requests wait, as they
// do while the API server is away. It must not be called once requests are made.
func (c *Client) HTTP(rc *rest.Config) (*http.Client, error) {
	if c.Certificate != nil {
		rc = rest.CopyConfig(rc)
		rc.CertFile, rc.KeyFile, rc.CertData, rc.KeyData = "", "", nil, nil
	}
	config, err := rc.TransportConfig()
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", rc.Host, err)
	}
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	c.dialers = append(c.dialers, dialer)
	config.DialHolder = &transport.DialHolder{Dial: dialer.DialContext}
	if c.Certificate != nil {
		config.TLS.GetCertHolder = &transport.GetCertHolder{GetCert: func() (*tls.Certificate, error) { return c.Certificate.Current(), nil }}
		config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return waiting{rt, c.Certificate.Ready()} })
	}
	rt, err := transport.New(config)
	if err != nil {
		return nil, fmt.Errorf("transport to %s: %w", rc.Host, err)
	}
	return &http.Client{Transport: rt, Timeout: rc.Timeout}, nil
}

// Reconnect ends all connections: those of an old certificate live as long as it
// does, and are broken off by the server then.
func (c *Client) Reconnect() {
	for _, d := range c.dialers {
		d.CloseAll()
	}
}

// waiting holds requests back that could not say who they are from.
type waiting struct {
	http.RoundTripper
	ready <-chan struct{}
}

func (w waiting) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-w.ready:
		return w.RoundTripper.RoundTrip(r)
	case <-r.Context().Done():
		return nil, fmt.Errorf("no client certificate yet: its request has to be approved (kubectl get csr): %w", r.Context().Err())
	}
}
