//go:build integration

package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// volumes sets up a pod's volumes, and checks at the end of the test that
// Teardown leaves nothing.
func volumes(t *testing.T, set *Set, pod *corev1.Pod) map[string]Mounted {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount file systems: run them as root")
	}
	t.Cleanup(func() {
		must(t, set.Teardown(context.Background(), pod.UID))
		if _, err := os.Lstat(set.podDir(pod.UID)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the pod's directory is still there: %v", err)
		}
		if left := mountsBelow(t, set.RootDir); len(left) > 0 {
			t.Errorf("mounts are left: %q", left)
		}
	})
	mounted, err := set.Setup(t.Context(), pod)
	must(t, err)
	return mounted
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	must(t, err)
	var out []string
	for _, m := range mounts {
		out = append(out, m.Mountpoint)
	}
	return out
}

func mountAt(t *testing.T, dir string) *mountinfo.Info {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	must(t, err)
	if len(mounts) != 1 {
		t.Fatalf("%s is not a mount", dir)
	}
	return mounts[0]
}

func TestMemoryEmptyDir(t *testing.T) {
	pod := basePod(onDisk("v", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("64Ki"))}))
	set := newSet(t, nil)
	dir := volumes(t, set, pod)["v"].HostPath
	m := mountAt(t, dir)
	if m.FSType != "tmpfs" || !strings.Contains(m.VFSOptions, "size=64k") || !strings.Contains(m.Options, "nosuid") || !strings.Contains(m.Options, "nodev") {
		t.Errorf("mounted is %s with %s, %s", m.FSType, m.Options, m.VFSOptions)
	}
	if err := os.WriteFile(dir+"/a", make([]byte, 65<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than the limit: %v, want no space", err)
	}
	must(t, os.WriteFile(dir+"/a", []byte("x"), 0o600))
	_, err := set.Setup(t.Context(), pod) // as after a restart of the agent
	must(t, err)
	if got := mountsBelow(t, dir); len(got) != 1 {
		t.Errorf("a second Setup made %d mounts", len(got))
	}
	if got, err := os.ReadFile(dir + "/a"); err != nil || string(got) != "x" {
		t.Errorf("what the pod wrote is %q, %v", got, err)
	}
}

func TestHugePagesEmptyDir(t *testing.T) {
	pages, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-2048kB")
	if err != nil || len(pages) == 0 {
		t.Skip("this kernel has no huge pages of 2 MiB")
	}
	pod := basePod(onDisk("v", corev1.EmptyDirVolumeSource{Medium: "HugePages-2Mi"}))
	pod.Spec.Containers[0].Resources.Requests["hugepages-2Mi"] = resource.MustParse("4Mi")
	m := mountAt(t, volumes(t, newSet(t, nil), pod)["v"].HostPath)
	if m.FSType != "hugetlbfs" || !strings.Contains(m.VFSOptions, "pagesize=2M") {
		t.Errorf("mounted is %s with %s", m.FSType, m.VFSOptions)
	}
}

func TestFSGroup(t *testing.T) {
	const group = 4321
	host := t.TempDir()
	pod := basePod(
		onDisk("disk", corev1.EmptyDirVolumeSource{}), onDisk("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}),
		corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "pw", DefaultMode: new(int32(0o400))}}},
		corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}},
	)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(group)), FSGroupChangePolicy: new(corev1.FSGroupChangeOnRootMismatch)}
	set := newSet(t, objects{"pw": {"key": "x"}})
	mounted := volumes(t, set, pod)
	owner := func(path string) string {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
	}
	want := map[string]string{
		mounted["disk"].HostPath: "0:4321 2777", mounted["memory"].HostPath: "0:4321 3777",
		mounted["secret"].HostPath + "/..data": "0:4321 2755", mounted["secret"].HostPath + "/key": "0:4321 0440",
	}
	for path, w := range want {
		if got := owner(path); got != w {
			t.Errorf("%s is %s, want %s", path, got, w)
		}
	}
	if got := owner(host); !strings.HasPrefix(got, "0:0 ") {
		t.Errorf("the host's directory is %s: it is not the pod's to change", got)
	}
	// What a container gives to another group stays so, whoever restarts.
	writeFile(t, mounted["disk"].HostPath+"/a", "x")
	must(t, os.Chown(mounted["disk"].HostPath+"/a", 7, 7))
	_, err := set.Setup(t.Context(), pod)
	must(t, err)
	if got := owner(mounted["disk"].HostPath + "/a"); got != "7:7 0644" {
		t.Errorf("the container's file is %s", got)
	}
}

func TestSecretsAreNeverOnDisk(t *testing.T) {
	item := []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}
	pod := basePod(
		corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "pw"}}},
		corev1.Volume{Name: "all", VolumeSource: projected(corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "pw"}}})},
		corev1.Volume{Name: "down", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: item}}},
	)
	for name, m := range volumes(t, newSet(t, objects{"pw": {"key": "x"}}), pod) {
		info := mountAt(t, m.HostPath)
		for _, option := range []string{"nosuid", "nodev", "noexec"} {
			if info.FSType != "tmpfs" || !strings.Contains(info.Options, option) || !m.ReadOnly {
				t.Errorf("%s is on %s with %s", name, info.FSType, info.Options)
			}
		}
	}
}

func TestSubPath(t *testing.T) {
	pod := basePod(onDisk("v", corev1.EmptyDirVolumeSource{}))
	set := newSet(t, nil)
	dir := volumes(t, set, pod)["v"].HostPath
	writeFile(t, dir+"/file", "one")
	bind := func(sub string) string {
		t.Helper()
		got, err := set.SubPath(t.Context(), pod, "c", 0, dir, sub)
		must(t, err)
		return got
	}
	target := bind("file")
	if got, err := os.ReadFile(target); err != nil || string(got) != "one" {
		t.Errorf("content is %q, %v", got, err)
	}
	must(t, os.Remove(dir+"/file"))
	must(t, os.Mkdir(dir+"/file", 0o755)) // the container starts anew, and finds another kind
	writeFile(t, dir+"/file/inner", "two")
	if got, err := os.ReadFile(bind("file") + "/inner"); err != nil || string(got) != "two" {
		t.Errorf("content is %q, %v", got, err)
	}
	if got := mountsBelow(t, target); len(got) != 1 {
		t.Errorf("%d mounts lie on one place", len(got))
	}
}

// TestSubPathRace swaps a directory of the volume with a link to the root of the
// file system, as a container could, while subPaths through it are mounted.
func TestSubPathRace(t *testing.T) {
	pod := basePod(onDisk("v", corev1.EmptyDirVolumeSource{}))
	set := newSet(t, nil)
	dir := volumes(t, set, pod)["v"].HostPath
	outside := t.TempDir()
	writeFile(t, outside+"/sub/outside", "x")
	writeFile(t, dir+"/real/sub/inside", "x")
	must(t, os.Symlink(outside, dir+"/link"))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/real", unix.AT_FDCWD, dir+"/link", unix.RENAME_EXCHANGE)
				runtime.Gosched() // a processor that both share shall see both states
			}
		}
	}()
	// On a busy machine the scheduler decides what is there for a thousand tries.
	const enough = 500
	bound, refused := 0, 0
	for patience := time.Now().Add(time.Minute); (bound < enough || refused < enough) && time.Now().Before(patience); {
		target, err := set.SubPath(t.Context(), pod, "c", 0, dir, "real/sub")
		if err != nil {
			refused++ // the link was there
			continue
		}
		bound++
		if _, err := os.Lstat(target + "/outside"); err == nil {
			t.Error("a directory outside of the volume was mounted")
			break
		}
	}
	close(stop)
	<-done
	if bound == 0 || refused == 0 {
		t.Errorf("%d mounted, %d refused: without both the test shows nothing", bound, refused)
	}
}

// TestTeardownSparesTheHost has mounts shared as systemd shares them, and a mount
// of the host below a subPath of a hostPath.
func TestTeardownSparesTheHost(t *testing.T) {
	host := t.TempDir()
	must(t, unix.Mount("tmpfs", host, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(host, unix.MNT_DETACH)) })
	must(t, unix.Mount("", host, "", unix.MS_SHARED, ""))
	must(t, os.MkdirAll(host+"/data/inner", 0o755))
	must(t, unix.Mount("tmpfs", host+"/data/inner", "tmpfs", 0, ""))
	writeFile(t, host+"/data/inner/keep", "precious")
	writeFile(t, host+"/data/keep", "precious")

	pod := basePod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}})
	set := newSet(t, nil)
	volumes(t, set, pod)
	for range 2 { // the second one replaces the first
		target, err := set.SubPath(t.Context(), pod, "c", 0, host, "data")
		must(t, err)
		if _, err := os.Stat(target + "/inner/keep"); err != nil {
			t.Errorf("mounts of the host are not in the subPath: %v", err)
		}
	}
	must(t, set.Teardown(t.Context(), pod.UID))
	for _, path := range []string{host + "/data/keep", host + "/data/inner/keep"} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the host lost what is its own: %v", err)
		}
	}
	if got := mountsBelow(t, host); len(got) != 2 {
		t.Errorf("the host's mounts are %q", got)
	}
}

func TestRemoveAllStopsAtMounts(t *testing.T) {
	host, dir := t.TempDir(), t.TempDir()
	writeFile(t, host+"/keep", "precious")
	writeFile(t, dir+"/a/b/c", "x")
	must(t, os.Symlink(host, dir+"/link"))
	must(t, os.MkdirAll(dir+"/d/mount", 0o755))
	must(t, unix.Mount(host, dir+"/d/mount", "", unix.MS_BIND, "")) // the same file system: its number tells nothing
	err := removeAll(dir)
	must(t, unix.Unmount(dir+"/d/mount", unix.UMOUNT_NOFOLLOW))
	if err == nil || !strings.Contains(err.Error(), "d/mount is a mount: not removed") {
		t.Errorf("error is %v, want one that names the mount", err)
	}
	if _, err := os.Stat(host + "/keep"); err != nil {
		t.Errorf("a mounted directory was emptied: %v", err)
	}
	must(t, removeAll(dir))
	must(t, removeAll(dir))
	must(t, os.Mkdir(dir, 0o755)) // for TempDir's own clean-up
}

// TestClaimedVolume binds a place of the machine, and goes on with it when nobody
// can be asked.
func TestClaimedVolume(t *testing.T) {
	disk := t.TempDir()
	writeFile(t, filepath.Join(disk, "kept"), "x")
	set, s := newSet(t, nil), claimedBy(disk)
	set.Server = s
	pod := basePod(claimVolume("data"))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(1234))}
	pod.Spec.Volumes = append(pod.Spec.Volumes, claimVolume("data"))
	pod.Spec.Volumes[1].Name, pod.Spec.Volumes[1].PersistentVolumeClaim.ReadOnly = "ro", true
	mounted := volumes(t, set, pod)
	if mounted["v"].ReadOnly || !mounted["ro"].ReadOnly {
		t.Errorf("got %+v, want one of them read-only", mounted)
	}
	writeFile(t, filepath.Join(mounted["v"].HostPath, "new"), "y")
	info, err := os.Stat(filepath.Join(disk, "new"))
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Gid != 1234 {
		t.Errorf("what is made in the volume has group %d, want the pod's", st.Gid)
	}
	mountAt(t, mounted["v"].HostPath)

	s.claim, s.asked = nil, 0
	again, err := set.Setup(t.Context(), pod)
	must(t, err)
	if d := cmp.Diff(mounted, again); d != "" || s.asked != 0 {
		t.Errorf("a new agent asked %d times (-want +got):\n%s", s.asked, d)
	}
	must(t, set.Teardown(t.Context(), pod.UID))
	for _, name := range []string{"kept", "new"} {
		if _, err := os.Stat(filepath.Join(disk, name)); err != nil {
			t.Errorf("the volume lost a file with its pod: %v", err)
		}
	}
}
