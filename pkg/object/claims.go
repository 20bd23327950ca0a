package object

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Claim is a claim of the pod's namespace. A node may read claims, but not watch
// them.
func (s *Store) Claim(ctx context.Context, pod *corev1.Pod, name string) (claim *corev1.PersistentVolumeClaim, err error) {
	err = s.patiently(ctx, func(ctx context.Context) error {
		claim, err = s.cfg.Core.PersistentVolumeClaims(pod.Namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return claim, gone("persistentvolumeclaim", name, err)
}

// PersistentVolume is one that a claim of this node's pods is bound to.
func (s *Store) PersistentVolume(ctx context.Context, name string) (volume *corev1.PersistentVolume, err error) {
	err = s.patiently(ctx, func(ctx context.Context) error {
		volume, err = s.cfg.Core.PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return volume, gone("persistentvolume", name, err)
}

// ServiceAccount is the pod's.
func (s *Store) ServiceAccount(ctx context.Context, pod *corev1.Pod) (account *corev1.ServiceAccount, err error) {
	err = s.patiently(ctx, func(ctx context.Context) error {
		account, err = s.cfg.Core.ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
		return err
	})
	return account, gone("serviceaccount", pod.Spec.ServiceAccountName, err)
}

// NodeLabels are the labels that this node's object has now.
func (s *Store) NodeLabels(ctx context.Context) (map[string]string, error) {
	node, err := s.cfg.Core.Nodes().Get(ctx, s.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("labels of node %s: %w", s.cfg.NodeName, err)
	}
	return node.Labels, nil
}

func gone(k kind, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return notFoundError{k, strconv.Quote(name)}
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", k, name, err)
	}
	return nil
}
