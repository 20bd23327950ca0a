package podsource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestDefaultsOfEverything(t *testing.T) {
	pod := parse(t, `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: -5
  initContainers:
  - {name: i, image: busybox, resources: {limits: {memory: 1Mi}}}
  containers:
  - name: c
    image: r.io/a/b:1.2@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    ports: [{containerPort: 80}]
    env:
    - {name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: B, valueFrom: {fileKeyRef: {volumeName: e, path: f, key: K}}}
    resources: {limits: {cpu: 100.1m, memory: 1Gi}, requests: {memory: 1Mi}}
    livenessProbe: {httpGet: {port: 80}}
    readinessProbe: {grpc: {port: 81}, periodSeconds: 3}
    lifecycle: {preStop: {httpGet: {port: http, scheme: HTTPS}}}
  volumes:
  - {name: e}
  - {name: h, hostPath: {path: /x}}
  - {name: s, secret: {secretName: s}}
  - {name: c, configMap: {name: c, defaultMode: 0400}}
  - {name: d, downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: p, projected: {sources: [{downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}}]}}
  - {name: i, image: {reference: "x:latest"}}
`).Pods[0]
	fieldRef := func(path string) *corev1.ObjectFieldSelector {
		return &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}
	}
	mode := new(int32(0o644))
	want := corev1.PodSpec{
		RestartPolicy: "Always", DNSPolicy: "ClusterFirst", SchedulerName: "default-scheduler", SecurityContext: &corev1.PodSecurityContext{},
		EnableServiceLinks: new(true), TerminationGracePeriodSeconds: new(int64(1)), HostNetwork: true, NodeName: "Node1",
		Tolerations: []corev1.Toleration{{Operator: "Exists", Effect: "NoExecute"}},
		InitContainers: []corev1.Container{{
			Name: "i", Image: "busybox", ImagePullPolicy: "Always", TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File",
			Resources: corev1.ResourceRequirements{
				Limits: corev1.ResourceList{"memory": resource.MustParse("1Mi")}, Requests: corev1.ResourceList{"memory": resource.MustParse("1Mi")},
			},
		}},
		Containers: []corev1.Container{{
			Name: "c", Image: pod.Spec.Containers[0].Image, ImagePullPolicy: "IfNotPresent", TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File",
			Ports: []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80, Protocol: "TCP"}},
			Env: []corev1.EnvVar{
				{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: fieldRef("metadata.name")}},
				{Name: "B", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "e", Path: "f", Key: "K", Optional: new(false)}}},
			},
			Resources: corev1.ResourceRequirements{
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("101m"), "memory": resource.MustParse("1Gi")},
				Requests: corev1.ResourceList{"cpu": resource.MustParse("101m"), "memory": resource.MustParse("1Mi")},
			},
			LivenessProbe: &corev1.Probe{
				ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80), Scheme: "HTTP"}},
				TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
			},
			ReadinessProbe: &corev1.Probe{
				ProbeHandler:   corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 81, Service: new("")}},
				TimeoutSeconds: 1, PeriodSeconds: 3, SuccessThreshold: 1, FailureThreshold: 3,
			},
			Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http"), Scheme: "HTTPS"}}},
		}},
		Volumes: []corev1.Volume{
			{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x", Type: new(corev1.HostPathUnset)}}},
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: mode}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, DefaultMode: new(int32(0o400))}}},
			{Name: "d", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{DefaultMode: mode, Items: []corev1.DownwardAPIVolumeFile{{Path: "p", FieldRef: fieldRef("metadata.labels")}}}}},
			{Name: "p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: []corev1.VolumeProjection{
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "p", FieldRef: fieldRef("metadata.name")}}}},
			}}}},
			{Name: "i", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "x:latest", PullPolicy: "Always"}}},
		},
	}
	if diff := cmp.Diff(want, pod.Spec); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPullPolicy(t *testing.T) {
	const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for image, want := range map[string]corev1.PullPolicy{
		"busybox": "Always", "busybox:latest": "Always", "busybox:latest" + digest: "Always", "host:5000/a/b": "Always",
		"busybox:1": "IfNotPresent", "busybox" + digest: "IfNotPresent", "host:5000/a/b:1": "IfNotPresent", "Not An Image": "IfNotPresent",
	} {
		if got := pullPolicyFor(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestPodLevelDefaults(t *testing.T) {
	cases := map[string]struct {
		reason           string
		containers       string
		pod              string
		limits, requests string
	}{
		"LimitsOnly":     {"what an API server does, unlike a kubelet", "{}", "{limits: {cpu: 1}}", "cpu=1", "cpu=1"},
		"FromContainers": {"what the containers request together goes before the pod's limit", "{requests: {cpu: 250m}}", "{limits: {cpu: 1}}", "cpu=1", "cpu=250m"},
		"LimitedByAll":   {"where every container has a limit, so has the pod", "{limits: {memory: 1Gi}}", "{requests: {memory: 2Gi}}", "memory=2Gi", "memory=2Gi"},
		"HugePages":      {"huge pages of containers are the pod's too", "{limits: {hugepages-2Mi: 4Mi, cpu: 1}}", "{limits: {memory: 1Gi}}", "cpu=1 hugepages-2Mi=4Mi memory=1Gi", "cpu=1 hugepages-2Mi=4Mi memory=1Gi"},
		"Empty":          {"an empty object asks for nothing", "{limits: {cpu: 1}}", "{}", "", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := parse(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  resources: "+tc.pod+"\n  containers: [{name: c, image: i, resources: "+tc.containers+"}]\n").Pods[0].Spec.Resources
			show := func(list corev1.ResourceList) (out string) {
				for _, n := range sortedNames(list) {
					q := list[n]
					if out != "" {
						out += " "
					}
					out += string(n) + "=" + q.String()
				}
				return out
			}
			if got := show(r.Limits); got != tc.limits {
				t.Errorf("%s: limits %s, want %s", tc.reason, got, tc.limits)
			}
			if got := show(r.Requests); got != tc.requests {
				t.Errorf("%s: requests %s, want %s", tc.reason, got, tc.requests)
			}
		})
	}
}
