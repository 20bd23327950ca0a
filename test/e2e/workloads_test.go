//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// serve answers HTTP on port 8080 with the pod's name; once it does, /tmp/ready is
// there.
const serve = `mkdir /www && hostname >/www/index.html && httpd -p 8080 -h /www && touch /tmp/ready && ` + forever

func template(app, script string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}, Spec: podSpec(script)}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

// probed is a container that is ready while /tmp/ready is there.
func probed(spec *corev1.PodSpec) {
	spec.Containers[0].ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/tmp/ready"}}},
		PeriodSeconds: 1, TimeoutSeconds: 10,
	}
}

// TestDeployment rolls out, updates and scales down, and its Service follows.
func TestDeployment(t *testing.T) {
	s := newSpace(t)
	replicas, none := int32(2), intstr.FromInt32(0)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: selector("web"), Template: template("web", serve),
		Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none}},
	}}
	probed(&d.Spec.Template.Spec)
	api := cluster.client.AppsV1().Deployments(s.name)
	if _, err := api.Create(s.ctx, d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.client.CoreV1().Services(s.name).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.kubectl("rollout", "status", "deployment/web", "--timeout=3m")
	ips := s.awaitEndpoints("web", 2)

	// A client in the cluster gets an answer from each of them.
	s.create(newPod("client", forever))
	s.awaitReady("client")
	var answers []string
	for _, ip := range ips {
		answers = append(answers, s.sh("client", "wget -q -O - http://"+ip+":8080/"))
	}
	if len(answers) != 2 || answers[0] == answers[1] {
		t.Errorf("two pods answered %q, want each with its own name", answers)
	}

	s.kubectl("set", "env", "deployment/web", "VERSION=2")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=3m")
	s.await("the old endpoints are replaced", func() error {
		now, err := s.endpoints("web")
		if err != nil {
			return err
		}
		if len(now) != 2 || slices.ContainsFunc(now, func(ip string) bool { return slices.Contains(ips, ip) }) {
			return fmt.Errorf("had %v, have %v", ips, now)
		}
		return nil
	})
	s.kubectl("scale", "deployment/web", "--replicas=0")
	s.awaitEndpoints("web", 0)
	s.await("no pod is left", func() error {
		left, err := s.pods().List(s.ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err == nil && len(left.Items) > 0 {
			return fmt.Errorf("%d are", len(left.Items))
		}
		return err
	})
}

// awaitEndpoints waits until a Service has n ready endpoints, and returns them.
func (s *space) awaitEndpoints(service string, n int) []string {
	s.Helper()
	var ips []string
	s.await(fmt.Sprintf("service %s has %d endpoints", service, n), func() error {
		var err error
		if ips, err = s.endpoints(service); err == nil && len(ips) != n {
			err = fmt.Errorf("it has %v", ips)
		}
		return err
	})
	return ips
}

// endpoints are the addresses that a Service sends its clients to.
func (s *space) endpoints(service string) ([]string, error) {
	slices, err := cluster.client.DiscoveryV1().EndpointSlices(s.name).List(s.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	var ips []string
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && *e.Conditions.Ready {
				ips = append(ips, e.Addresses...)
			}
		}
	}
	return ips, nil
}

// TestEndpointsFollowReadiness loses an endpoint while its pod is not ready.
func TestEndpointsFollowReadiness(t *testing.T) {
	s := newSpace(t)
	if _, err := cluster.client.CoreV1().Services(s.name).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "one"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "one"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.create(newPod("one", serve, func(p *corev1.Pod) { probed(&p.Spec) }))
	pod := s.awaitReady("one")
	if ips := s.awaitEndpoints("one", 1); ips[0] != pod.Status.PodIP {
		t.Errorf("endpoint %s, want the pod's %s", ips[0], pod.Status.PodIP)
	}
	s.sh("one", "rm /tmp/ready")
	s.awaitEndpoints("one", 0)
	s.sh("one", "touch /tmp/ready")
	s.awaitEndpoints("one", 1)
	if n := status(s.get("one"), "main").RestartCount; n != 0 {
		t.Errorf("%d restarts: a pod that is not ready is not restarted", n)
	}
}

// TestJob completes, one pod after the other, and fails when its pods do.
func TestJob(t *testing.T) {
	s := newSpace(t)
	two, once := int32(2), int32(0)
	api := cluster.client.BatchV1().Jobs(s.name)
	for name, job := range map[string]batchv1.JobSpec{
		"good": {Completions: &two, BackoffLimit: &once, Template: template("good", "echo done")},
		"bad":  {BackoffLimit: &once, Template: template("bad", "exit 3")},
	} {
		job.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		if _, err := api.Create(s.ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: job}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.kubectl("wait", "--for=condition=Complete", "job/good", "--timeout=3m")
	s.kubectl("wait", "--for=condition=Failed", "job/bad", "--timeout=3m")
	if got := s.kubectl("logs", "job/good", "--all-pods"); len(got) == 0 {
		t.Error("no log of a job that is done")
	}
	failed, err := s.pods().List(s.ctx, metav1.ListOptions{LabelSelector: "app=bad"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range failed.Items {
		if got := status(&p, "main").State.Terminated; got == nil || got.ExitCode != 3 || got.Reason != "Error" {
			t.Errorf("terminated: %+v, want exit code 3 for Error", got)
		}
	}
}

// TestDaemonSet runs on the node, and is updated in place of its pod.
func TestDaemonSet(t *testing.T) {
	s := newSpace(t)
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent"}, Spec: appsv1.DaemonSetSpec{Selector: selector("agent"), Template: template("agent", forever)}}
	if _, err := cluster.client.AppsV1().DaemonSets(s.name).Create(s.ctx, ds, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.kubectl("rollout", "status", "daemonset/agent", "--timeout=3m")
	s.kubectl("rollout", "restart", "daemonset/agent")
	s.kubectl("rollout", "status", "daemonset/agent", "--timeout=3m")
	pods, err := s.pods().List(s.ctx, metav1.ListOptions{LabelSelector: "app=agent"})
	if err != nil {
		t.Fatal(err)
	}
	var on []string
	for _, p := range pods.Items {
		if p.DeletionTimestamp == nil {
			on = append(on, p.Spec.NodeName)
		}
	}
	if len(on) != 1 || on[0] != cluster.node {
		t.Errorf("pods on %v, want one on %s", on, cluster.node)
	}
}

// TestStatefulSet starts in order, and gives a pod that comes back its name.
func TestStatefulSet(t *testing.T) {
	s := newSpace(t)
	two := int32(2)
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &two, ServiceName: "db", Selector: selector("db"), Template: template("db", "touch /tmp/ready;"+forever),
	}}
	probed(&set.Spec.Template.Spec)
	if _, err := cluster.client.AppsV1().StatefulSets(s.name).Create(s.ctx, set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.kubectl("rollout", "status", "statefulset/db", "--timeout=3m")
	first, second := s.get("db-0"), s.get("db-1")
	if ready, created := transition(first, corev1.PodReady), second.CreationTimestamp; created.Before(&ready) {
		t.Errorf("db-1 was created at %s, before db-0 was ready at %s", created, ready)
	}
	s.kubectl("delete", "pod", "db-0", "--wait=false")
	s.awaitGone("db-0", first.UID)
	s.awaitReady("db-0")
	if got := s.sh("db-0", "hostname -f || hostname"); len(got) < 4 || got[:4] != "db-0" {
		t.Errorf("hostname %q, want db-0", got)
	}
}

// transition is when a condition last changed.
func transition(p *corev1.Pod, kind corev1.PodConditionType) metav1.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.LastTransitionTime
		}
	}
	return metav1.Time{}
}
