package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	certificatesclient "k8s.io/client-go/kubernetes/typed/certificates/v1"
)

// errClosed says that a watch has ended without an answer.
var errClosed = errors.New("watch has ended")

// sign has a new key certified. It returns both in PEM.
func (c *Certificate) sign(ctx context.Context, client certificatesclient.CertificateSigningRequestInterface, template *x509.CertificateRequest) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, template, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	usage := certificatesv1.UsageClientAuth
	if c.Signer == certificatesv1.KubeletServingSignerName {
		usage = certificatesv1.UsageServerAuth
	}
	csr, err := client.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), SignerName: c.Signer,
			// Without key encipherment, which is for RSA: the signer refuses it here.
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, usage},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("create certificate signing request: %w", err)
	}
	c.Log.Info("certificate requested; it has to be approved", "request", csr.Name, "signer", c.Signer)
	for {
		cert, err = issued(ctx, client, csr.Name)
		if ctx.Err() != nil || !errors.Is(err, errClosed) {
			return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
		}
	}
}

// issued waits for the answer to a request: it may take an administrator to give
// it. One that is gone has been forgotten by all, and is an error.
func issued(ctx context.Context, client certificatesclient.CertificateSigningRequestInterface, name string) ([]byte, error) {
	csr, err := client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get certificate signing request %s: %w", name, err)
	}
	if cert, err := answer(csr); cert != nil || err != nil {
		return cert, err
	}
	w, err := client.Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(), ResourceVersion: csr.ResourceVersion,
	})
	if err != nil {
		return nil, fmt.Errorf("watch certificate signing request %s: %w", name, err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		csr, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
		switch {
		case !ok: // an error of the watch: the next look tells
			return nil, errClosed
		case e.Type == watch.Deleted:
			return nil, fmt.Errorf("certificate signing request %s was deleted before it was answered", name)
		}
		if cert, err := answer(csr); cert != nil || err != nil {
			return cert, err
		}
	}
	return nil, errClosed
}

// answer is the certificate, or why there will be none, or neither yet.
func answer(csr *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	for _, c := range csr.Status.Conditions {
		if c.Status != corev1.ConditionFalse && (c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed) {
			return nil, fmt.Errorf("certificate signing request %s: %s: %s: %s", csr.Name, c.Type, c.Reason, c.Message)
		}
	}
	if len(csr.Status.Certificate) == 0 {
		return nil, nil
	}
	return csr.Status.Certificate, nil
}
