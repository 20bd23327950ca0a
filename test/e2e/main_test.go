//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodeagent/nodeagent/internal/controlplane"
)

// patience bounds how long a state may take to come, on an emulated machine too;
// it is no measure of speed.
const patience = 3 * time.Minute

// poll is how often the API server is asked whether it has come.
const poll = 200 * time.Millisecond

// namespaceLabel marks the namespaces of this suite.
const namespaceLabel = "nodeagent.dev/e2e"

// suite is what all tests share.
type suite struct {
	kubeconfig string
	kubectl    string
	node       string
	image      string
	rest       *rest.Config
	client     *kubernetes.Clientset
}

var cluster suite

func TestMain(m *testing.M) {
	if err := cluster.open(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := cluster.close(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// open reads the environment and waits for the node.
func (s *suite) open() error {
	s.kubeconfig, s.node = os.Getenv("KUBECONFIG"), os.Getenv("NODE_NAME")
	if s.kubeconfig == "" || s.node == "" {
		return errors.New("set KUBECONFIG and NODE_NAME to a cluster and a node of it; `make e2e` makes both")
	}
	s.image = "demo/busybox:1"
	if image := os.Getenv("E2E_IMAGE"); image != "" {
		s.image = image
	}
	if err := s.findKubectl(); err != nil {
		return err
	}
	var err error
	if s.rest, err = clientcmd.BuildConfigFromFlags("", s.kubeconfig); err != nil {
		return err
	}
	s.rest.QPS, s.rest.Burst = 200, 400
	if s.client, err = kubernetes.NewForConfig(s.rest); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return until(ctx, "node "+s.node+" is ready", func() error {
		node, err := s.client.CoreV1().Nodes().Get(ctx, s.node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("conditions are %+v", node.Status.Conditions)
	})
}

func (s *suite) findKubectl() error {
	if s.kubectl = os.Getenv("KUBECTL"); s.kubectl != "" {
		return nil
	}
	built, err := filepath.Abs("../../.cache/peers/kubectl")
	if err != nil {
		return err
	}
	if _, err := os.Stat(built); err == nil {
		s.kubectl = built
		return nil
	}
	s.kubectl, err = exec.LookPath("kubectl")
	return err
}

// close checks what is true only of all tests together: the namespaces go, for no
// pod in them stays; and the node has asked for nothing that it may not have.
func (s *suite) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := until(ctx, "the namespaces of all tests are gone", func() error {
		list, err := s.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: namespaceLabel})
		if err != nil {
			return err
		}
		for _, ns := range list.Items {
			return fmt.Errorf("%s is still there: %+v", ns.Name, ns.Status.Conditions)
		}
		return nil
	})
	log := os.Getenv("AUDIT_LOG")
	if log == "" {
		return err
	}
	return errors.Join(err, controlplane.Audit(log))
}

// until asks ok again and again until it has no objection.
func until(ctx context.Context, what string, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not in %s: %w", what, patience, err)
		case <-time.After(poll):
		}
	}
}

// ignoreNotFound is for what should be gone.
func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
