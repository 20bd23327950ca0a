package object

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

// TrustBundle is the certificates of the bundles that a projection picks, each of
// them once. An error that matches fs.ErrNotExist says that it picks none.
func (s *Store) TrustBundle(ctx context.Context, pod *corev1.Pod, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	what := fmt.Sprintf("signer %q", ptr.Deref(p.SignerName, ""))
	if p.Name != nil {
		what = fmt.Sprintf("%q", *p.Name)
	}
	k, ok, err := bundlesOf(p)
	if err != nil {
		return nil, fmt.Errorf("clustertrustbundles of %s: label selector: %w", what, err)
	}
	var bundles []*certificatesv1.ClusterTrustBundle
	if ok {
		items, err := s.lookUp(ctx, pod, k)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("clustertrustbundle %s: the API server does not serve certificates.k8s.io/v1 clustertrustbundles", what)
		}
		if err != nil {
			return nil, fmt.Errorf("clustertrustbundle %s: %w", what, err)
		}
		bundles = sorted[*certificatesv1.ClusterTrustBundle](items)
	}
	if len(bundles) == 0 {
		return nil, notFoundError{trustBundles, what}
	}
	return certificates(bundles), nil
}

// certificates is all certificates of bundles, each once and in a fixed order,
// without what else is between them.
func certificates(bundles []*certificatesv1.ClusterTrustBundle) []byte {
	var found [][]byte
	for _, b := range bundles {
		rest := []byte(b.Spec.TrustBundle)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type == "CERTIFICATE" {
				found = append(found, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
			}
		}
	}
	slices.SortFunc(found, bytes.Compare)
	return bytes.Join(slices.CompactFunc(found, bytes.Equal), nil)
}
