package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/gc"
)

func TestPullingColumn(t *testing.T) {
	waiting := func(messages ...string) *corev1.Pod {
		p := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}
		for _, m := range messages {
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating", Message: m}},
			})
		}
		return p
	}
	half := cri.Progress{Image: "a:1", Done: 50, Total: 100}.String()
	ending := waiting(half)
	ending.DeletionTimestamp = &metav1.Time{}
	cases := map[string]struct {
		reason string
		pod    *corev1.Pod
		want   string
	}{
		"Bar":    {"how far the pull is", waiting(half), "Pulling[#####.....]50%"},
		"Begun":  {"nothing is known yet", waiting(cri.Progress{Image: "a:1"}.String()), "Pulling[..........]0%"},
		"Slower": {"of two pulls the one that is waited for longer", waiting(half, cri.Progress{Image: "b", Done: 3, Total: 10}.String()), "Pulling[###.......]30%"},
		"None":   {"another reason to wait", waiting("Back-off pulling image"), "ContainerCreating"},
		"Ending": {"a pod that ends is not waited for", ending, "Terminating"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if row := podRow(tc.pod, time.Now(), false, false); row[2] != tc.want {
				t.Errorf("%s: got %q, want %q", tc.reason, row[2], tc.want)
			}
		})
	}
}

func TestImagesTable(t *testing.T) {
	pods := []cri.Pod{
		{Namespace: "default", Name: "web", Containers: []cri.Container{{ImageID: "sha256:0123456789abcdef"}, {ImageID: "sha256:0123456789abcdef"}}},
		{Namespace: "kube-system", Name: "dns", Containers: []cri.Container{{ImageID: "sha256:0123456789abcdef"}}},
	}
	list := []cri.Image{
		{Name: "quay.io:443/org/app@sha256:" + string(bytes.Repeat([]byte("0"), 64)), ID: "short", Size: 2 << 20},
		{Name: "docker.io/demo/busybox:1", ID: "sha256:0123456789abcdef", Size: 1 << 20},
	}
	var out bytes.Buffer
	if err := printImages(&out, viewImages(list, pods), false); err != nil {
		t.Fatal(err)
	}
	want := "IMAGE                    TAG      IMAGE ID       SIZE   USED BY\n" +
		"docker.io/demo/busybox   1        0123456789ab   1Mi    default/web,kube-system/dns\n" +
		"quay.io:443/org/app      <none>   short          2Mi    <none>\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestGroupImages(t *testing.T) {
	now := time.Now()
	list := []cri.Image{
		{Name: "a:1", ID: "x", Size: 7, CreatedAt: now}, {Name: "b:1", ID: "y", CreatedAt: now}, {Name: "a:2", ID: "x", Size: 7, CreatedAt: now.Add(time.Hour), Archive: "f.tar"},
		{Name: "c:1", ID: "z", Pinned: true, CreatedAt: now},
	}
	got := groupImages(list, func(i *cri.Image) bool { return i.Archive != "" })
	want := []gc.Image{
		{ID: "x", Names: []string{"a:1", "a:2"}, Size: 7, Created: now.Add(time.Hour), Keep: true},
		{ID: "y", Names: []string{"b:1"}, Created: now},
		{ID: "z", Names: []string{"c:1"}, Created: now, Keep: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the names of an image stay or go together (-want +got):\n%s", diff)
	}
}
