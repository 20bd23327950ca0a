package volume

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func onDisk(name string, e corev1.EmptyDirVolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &e}}
}

func TestEmptyDirOnDisk(t *testing.T) {
	set, pod := newSet(t, nil), basePod(onDisk("v", corev1.EmptyDirVolumeSource{}), onDisk("tmp", corev1.EmptyDirVolumeSource{Mode: new(int32(0o1770))}))
	must(t, os.MkdirAll(set.dir(pod.UID, "empty-dir", "v")+".new/half", 0o700)) // of a crash
	mounted, err := set.Setup(t.Context(), pod)
	must(t, err)
	if info, err := os.Stat(mounted["v"].HostPath); err != nil || info.Mode() != os.ModeDir|0o777 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(mounted["tmp"].HostPath); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o770 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	// A container made it its own; a restarted agent leaves it so.
	must(t, os.Chmod(mounted["v"].HostPath, 0o700))
	writeFile(t, mounted["v"].HostPath+"/data", "x")
	_, err = set.Setup(t.Context(), pod)
	must(t, err)
	info, err := os.Stat(mounted["v"].HostPath)
	must(t, err)
	if _, err := os.Stat(mounted["v"].HostPath + "/data"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("after a second Setup the mode is %v and the data %v", info.Mode(), err)
	}
}

func TestSizes(t *testing.T) {
	limited := func(q string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse(q)}}
	}
	cases := map[string]struct {
		reason string
		change func(*corev1.Pod)
		limit  string
		want   int64
	}{
		"Node":   {"a pod without a limit may use what the node offers", func(p *corev1.Pod) { p.Spec.Containers[0].Resources = corev1.ResourceRequirements{} }, "", 1 << 30},
		"Pod":    {"the volume counts against the pod's memory", nil, "", 128 << 20},
		"Partly": {"one container without a limit leaves the pod without", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d"}) }, "", 1 << 30},
		"PodLevel": {"unless the pod itself has one", func(p *corev1.Pod) {
			r := limited("256Mi")
			p.Spec.Resources = &r
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
		}, "", 256 << 20},
		"Volume":      {"the smallest of all", nil, "16Mi", 16 << 20},
		"VolumeLarge": {"a limit above the pod's has no effect", nil, "4Gi", 128 << 20},
		"Zero":        {"0 is no limit", nil, "0", 128 << 20},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.change != nil {
				tc.change(pod)
			}
			var limit *resource.Quantity
			if tc.limit != "" {
				limit = new(resource.MustParse(tc.limit))
			}
			if got := newSet(t, nil).memorySize(pod, limit); got != tc.want {
				t.Errorf("%s: got %d, want %d", tc.reason, got, tc.want)
			}
		})
	}
}

func TestHugePageSize(t *testing.T) {
	cases := map[string]struct {
		reason   string
		requests []string
		medium   corev1.StorageMedium
		want     int64
		err      string
	}{
		"One":     {"the size that the pod asks for", []string{"2Mi"}, "HugePages", 2 << 20, ""},
		"Named":   {"the named one of several", []string{"2Mi", "1Gi"}, "HugePages-1Gi", 1 << 30, ""},
		"Other":   {"a size has many names", []string{"2Mi"}, "HugePages-2048Ki", 2 << 20, ""},
		"Several": {"which one?", []string{"2Mi", "1Gi"}, "HugePages", 0, "of 2 sizes"},
		"None":    {"the pod could not use one", nil, "HugePages", 0, "of 0 sizes"},
		"Wrong":   {"the pod could not use one", []string{"2Mi"}, "HugePages-1Gi", 0, "no container of the pod requests hugepages-1Gi"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			for _, size := range tc.requests {
				pod.Spec.Containers[0].Resources.Requests[corev1.ResourceName("hugepages-"+size)] = resource.MustParse(size)
			}
			got, err := hugePageSize(pod, tc.medium)
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: got %d, %v, want %d, %q", tc.reason, got, err, tc.want, tc.err)
			}
		})
	}
}

func TestSizeLimitOnDisk(t *testing.T) {
	const tooMuch = 1<<20 + 1
	cases := map[string]struct {
		reason string
		change func(*corev1.Pod)
		fill   func(t *testing.T, dir string)
		want   string
	}{
		"Within": {"below the limit nothing happens", nil, func(t *testing.T, dir string) { writeFile(t, dir+"/a", strings.Repeat("x", 1000)) }, ""},
		"Over":   {"", nil, func(t *testing.T, dir string) { writeFile(t, dir+"/d/a", strings.Repeat("x", tooMuch)) }, `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		"Many": {"all files count together", nil, func(t *testing.T, dir string) {
			for _, name := range []string{"a", "b", "c/d"} {
				writeFile(t, dir+"/"+name, strings.Repeat("x", tooMuch/2))
			}
		}, `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		"Sparse": {"what takes no room does not count", nil, func(t *testing.T, dir string) { writeFile(t, dir+"/a", ""); must(t, os.Truncate(dir+"/a", 1<<30)) }, ""},
		"HardLink": {"one file counts once", nil, func(t *testing.T, dir string) {
			writeFile(t, dir+"/a", strings.Repeat("x", tooMuch*2/3))
			must(t, os.Link(dir+"/a", dir+"/b"))
		}, ""},
		"Link":     {"links lead to what is not the pod's", nil, func(t *testing.T, dir string) { must(t, os.Symlink("/usr", dir+"/usr")) }, ""},
		"NoLimit":  {"", func(p *corev1.Pod) { p.Spec.Volumes[0].EmptyDir.SizeLimit = nil }, func(t *testing.T, dir string) { writeFile(t, dir+"/a", strings.Repeat("x", tooMuch)) }, ""},
		"Critical": {"what the node cannot do without is never evicted", func(p *corev1.Pod) { p.Spec.Priority = new(int32(2_000_001_000)) }, func(t *testing.T, dir string) { writeFile(t, dir+"/a", strings.Repeat("x", tooMuch)) }, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set, pod := newSet(t, nil), basePod(onDisk("v", corev1.EmptyDirVolumeSource{SizeLimit: new(resource.MustParse("1Mi"))}))
			if tc.change != nil {
				tc.change(pod)
			}
			mounted, err := set.Setup(t.Context(), pod)
			must(t, err)
			tc.fill(t, mounted["v"].HostPath)
			if got := set.overLimit(t.Context(), pod); got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
			}
			must(t, set.Teardown(t.Context(), pod.UID))
			if got := set.overLimit(t.Context(), pod); got != "" {
				t.Errorf("a volume that is gone is over its limit: %q", got)
			}
		})
	}
}

func TestLimitsEvictOnce(t *testing.T) {
	set, pod := newSet(t, nil), basePod(onDisk("v", corev1.EmptyDirVolumeSource{SizeLimit: new(resource.MustParse("1"))}))
	mounted, err := set.Setup(t.Context(), pod)
	must(t, err)
	writeFile(t, mounted["v"].HostPath+"/a", "xyz")
	looked, evicted := 0, 0
	enough := make(chan struct{})
	l := &Limits{Set: set, Every: time.Millisecond, Evict: func(*corev1.Pod, string) { evicted++ }, Pods: func() []*corev1.Pod {
		if looked++; looked == 3 {
			close(enough)
		}
		return []*corev1.Pod{pod}
	}}
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- l.Run(ctx) }()
	<-enough
	cancel()
	must(t, <-done)
	if evicted != 1 {
		t.Errorf("evicted %d times", evicted)
	}
}
