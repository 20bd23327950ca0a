package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

// healthy is a machine with nothing wrong.
func healthy() *Facts {
	return &Facts{
		Hostname: "n1", IPs: []string{"10.0.0.1", "fd00::1"}, Capacity: list("cpu", "4", "memory", "8Gi", "pods", "110"),
		Allocatable: list("cpu", "3500m", "memory", "7Gi", "pods", "110"), Port: 10250,
		Info: corev1.NodeSystemInfo{BootID: "b1", KubeletVersion: "v1.37.2+nodeagent-v1"},
	}
}

func noon() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) }

func condition(s *corev1.NodeStatus, kind corev1.NodeConditionType) corev1.NodeCondition {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.NodeCondition{}
}

func TestSetAddresses(t *testing.T) {
	s := &corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.9.9.9"}}}
	setAddresses(s, healthy(), noon())
	want := []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"}, {Type: corev1.NodeHostName, Address: "n1"}}
	if d := cmp.Diff(want, s.Addresses); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestSetResources(t *testing.T) {
	cases := map[string]struct {
		reason            string
		have, allocatable corev1.ResourceList
		wantCapacity      corev1.ResourceList
		wantAllocatable   corev1.ResourceList
	}{
		"Fresh":    {"the machine's own", nil, nil, healthy().Capacity, healthy().Allocatable},
		"Smaller":  {"a machine that has lost memory", list("memory", "16Gi"), list("memory", "15Gi"), healthy().Capacity, healthy().Allocatable},
		"Extended": {"someone else's resource stays, and all of it can be had", list("example.com/gpu", "2"), nil, list("cpu", "4", "memory", "8Gi", "pods", "110", "example.com/gpu", "2"), list("cpu", "3500m", "memory", "7Gi", "pods", "110", "example.com/gpu", "2")},
		"HugePage": {"a page size that this kernel no longer has", list("hugepages-1Gi", "2Gi"), list("hugepages-1Gi", "2Gi"), healthy().Capacity, healthy().Allocatable},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &corev1.NodeStatus{Capacity: tc.have, Allocatable: tc.allocatable}
			setResources(s, healthy(), noon())
			if d := cmp.Diff(tc.wantCapacity, s.Capacity); d != "" {
				t.Errorf("%s: capacity -want +got:\n%s", tc.reason, d)
			}
			if d := cmp.Diff(tc.wantAllocatable, s.Allocatable); d != "" {
				t.Errorf("%s: allocatable -want +got:\n%s", tc.reason, d)
			}
		})
	}
}

func TestSetReady(t *testing.T) {
	cases := map[string]struct {
		reason string
		change func(*Facts)
		want   corev1.NodeCondition
	}{
		"Ready": {"", func(*Facts) {}, corev1.NodeCondition{Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}},
		"One":   {"the cause is named", func(f *Facts) { f.Causes = []string{"a"} }, corev1.NodeCondition{Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: "a"}},
		"Two":   {"all of them", func(f *Facts) { f.Causes = []string{"a", "b"} }, corev1.NodeCondition{Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: "[a, b]"}},
		"NoMemory": {"nothing can be counted", func(f *Facts) { delete(f.Capacity, corev1.ResourceMemory) },
			corev1.NodeCondition{Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: "missing node capacity for resources: memory"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			tc.change(f)
			got := condition(newStatus(&corev1.NodeStatus{}, f, noon()), corev1.NodeReady)
			tc.want.Type, tc.want.LastHeartbeatTime, tc.want.LastTransitionTime = corev1.NodeReady, metav1.NewTime(noon()), metav1.NewTime(noon())
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, d)
			}
		})
	}
}

func TestPressureConditions(t *testing.T) {
	f := healthy()
	f.Pressures = map[corev1.NodeConditionType]bool{corev1.NodeMemoryPressure: true, corev1.NodePIDPressure: true, corev1.NodeDiskPressure: true}
	under, fine := newStatus(&corev1.NodeStatus{}, f, noon()), newStatus(&corev1.NodeStatus{}, healthy(), noon())
	for kind, want := range map[corev1.NodeConditionType][2]string{
		corev1.NodeMemoryPressure: {"KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"},
		corev1.NodeDiskPressure:   {"KubeletHasDiskPressure", "KubeletHasNoDiskPressure"},
		corev1.NodePIDPressure:    {"KubeletHasInsufficientPID", "KubeletHasSufficientPID"},
	} {
		if c := condition(under, kind); c.Status != corev1.ConditionTrue || c.Reason != want[0] {
			t.Errorf("%s under pressure: %s %s", kind, c.Status, c.Reason)
		}
		if c := condition(fine, kind); c.Status != corev1.ConditionFalse || c.Reason != want[1] {
			t.Errorf("%s without: %s %s", kind, c.Status, c.Reason)
		}
	}
}

func TestTransitionTimes(t *testing.T) {
	first := newStatus(&corev1.NodeStatus{}, healthy(), noon())
	same := newStatus(first, healthy(), noon().Add(time.Minute))
	if c := condition(same, corev1.NodeReady); !c.LastTransitionTime.Time.Equal(noon()) || !c.LastHeartbeatTime.Time.Equal(noon().Add(time.Minute)) {
		t.Errorf("confirmed: %+v", c)
	}
	if differs(first, same) {
		t.Error("a heartbeat alone is a change")
	}
	f := healthy()
	f.Causes = []string{"a"}
	changed := newStatus(same, f, noon().Add(2*time.Minute))
	if c := condition(changed, corev1.NodeReady); !c.LastTransitionTime.Time.Equal(noon().Add(2 * time.Minute)) {
		t.Errorf("changed: %+v", c)
	}
	if !differs(same, changed) {
		t.Error("NotReady is no change")
	}
}

func TestOthersConditionsStay(t *testing.T) {
	foreign := corev1.NodeCondition{Type: "Frobbing", Status: corev1.ConditionTrue, Reason: "R"}
	s := newStatus(&corev1.NodeStatus{Conditions: []corev1.NodeCondition{foreign}, VolumesAttached: []corev1.AttachedVolume{{Name: "v"}}}, healthy(), noon())
	if d := cmp.Diff(foreign, condition(s, "Frobbing")); d != "" || len(s.VolumesAttached) != 1 {
		t.Errorf("what others wrote has changed: %s %v", d, s.VolumesAttached)
	}
}

func TestTopImages(t *testing.T) {
	images := []corev1.ContainerImage{{Names: []string{"small"}, SizeBytes: 1}, {Names: []string{"1", "2", "3", "4", "5", "6"}, SizeBytes: 9}, {Names: []string{"mid"}, SizeBytes: 5}}
	want := []corev1.ContainerImage{{Names: []string{"1", "2", "3", "4", "5"}, SizeBytes: 9}, {Names: []string{"mid"}, SizeBytes: 5}}
	if d := cmp.Diff(want, TopImages(images, 2)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := TopImages(images, -1); len(got) != 3 {
		t.Errorf("without a limit: %d images", len(got))
	}
}

func TestVersion(t *testing.T) {
	for _, agent := range []string{"v1.2.3", "v0.0.0-dev", "v1.2.3+dirty", "a_b"} {
		v, err := version.ParseSemantic(Version("v1.37.2", agent))
		if err != nil {
			t.Errorf("%s: %v", agent, err)
			continue
		}
		if c, err := v.Compare("1.37.2"); err != nil || c != 0 {
			t.Errorf("%s: %s is not 1.37.2", agent, v)
		}
	}
}

func TestReadInfo(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"etc/machine-id": "m1\n", "etc/os-release": "NAME=x\nPRETTY_NAME=\"An OS 1\"\n", "sys/class/dmi/id/product_uuid": "u1\n",
		"proc/sys/kernel/random/boot_id": "b1\n", "proc/sys/kernel/osrelease": "6.1\n", "proc/meminfo": "MemTotal: 8 kB\nSwapTotal:  4 kB\n",
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadInfo(Roots{Proc: dir + "/proc", Sys: dir + "/sys", Etc: dir + "/etc", Var: dir + "/var"})
	if err != nil {
		t.Fatal(err)
	}
	want := corev1.NodeSystemInfo{MachineID: "m1", SystemUUID: "u1", BootID: "b1", KernelVersion: "6.1", OSImage: "An OS 1", Swap: &corev1.NodeSwapStatus{Capacity: new(int64(4096))}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
