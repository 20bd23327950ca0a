package cri

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/apimachinery/pkg/types"
)

// A pod whose containers share a PID namespace needs a process that holds it:
// the kernel ends everything in the namespace with its init. Ours is a program
// of a few instructions, so that it needs neither an image nor memory:
//
//	sigaction(SIGCHLD, {SIG_IGN, SA_NOCLDWAIT})   the kernel reaps orphans
//	for { pause() }
//
// As init it is immune to every signal from inside but those it has a handler
// for, and it has none.

// initArgs is the init's command line, which users see in ps.
const initArgs = "/pause"

// startInit starts the init of a shared PID namespace and returns its process ID.
func (r *Runtime) startInit(ctx context.Context, p *podState, cfg *SandboxConfig, record *sandboxRecord) error {
	rootfs, err := r.initRootfs()
	if err != nil {
		return fmt.Errorf("make the init process: %w", err)
	}
	id := initID(record.ID)
	shares := uint64(minInitShares)
	spec := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{Args: []string{initArgs}, Cwd: "/", NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}}, // runc makes devices
		},
		Linux: &specs.Linux{
			CgroupsPath: initCgroup(cfg.CgroupParent, id),
			Resources:   &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}, Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces:  append(podNamespaces(&record.Sandbox), specs.LinuxNamespace{Type: specs.MountNamespace}, specs.LinuxNamespace{Type: specs.PIDNamespace}),
			MaskedPaths: maskedPaths(), ReadonlyPaths: readonlyPaths(),
			UIDMappings: idMappings(&record.Sandbox), GIDMappings: idMappings(&record.Sandbox),
		},
		Annotations: map[string]string{annotationShimGroup: string(record.UID)},
	}
	labels := podLabels(cfg.Pod)
	labels[labelKind] = kindInit
	ctx = leases.WithLease(ctx, leaseID(record.UID))
	if _, err := r.createRecordWith(ctx, id, "", "", labels, spec); err != nil {
		return fmt.Errorf("make the init process: %w", err)
	}
	options, err := r.runcOptions(0, 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout) // as for other containers
	defer cancel()
	defer r.startShim(p)()
	resp, err := r.client.TaskService().Create(ctx, &tasksapi.CreateTaskRequest{
		ContainerID: id, Options: options,
		Rootfs: []*apitypes.Mount{{Type: "bind", Source: rootfs, Options: []string{"rbind", "ro"}}},
	})
	if err != nil {
		return fmt.Errorf("make the init process: %w", errgrpc.ToNative(err))
	}
	r.mu.Lock()
	p.init = true
	r.mu.Unlock()
	if _, err := r.client.TaskService().Start(ctx, &tasksapi.StartRequest{ContainerID: id}); err != nil {
		return fmt.Errorf("start the init process: %w", errgrpc.ToNative(err))
	}
	record.PIDInit = resp.Pid
	return nil
}

// minInitShares is the smallest CPU weight: the init never runs.
const minInitShares = 2

func initID(sandboxID string) string { return sandboxID }

// initCgroup is the init's cgroup below the pod's, as for a container.
func initCgroup(parent, id string) string {
	if unit := path.Base(parent); strings.HasSuffix(unit, ".slice") {
		return unit + ":cri-containerd:" + id
	}
	return path.Join(parent, id)
}

// watchInit marks a pod's sandbox as broken when its init has ended.
func (r *Runtime) watchInit(ctx context.Context, uid types.UID, id string) {
	for {
		_, err := r.client.TaskService().Wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
		if ctx.Err() != nil {
			return
		}
		if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reconnectDelay):
		}
	}
	r.mu.Lock()
	if p := r.pods[uid]; p != nil && p.sandbox != nil && p.sandbox.ID == id {
		p.sandbox.Ready, p.sandbox.Error = false, "the init process of its PID namespace has ended"
	}
	r.mu.Unlock()
	r.wake(uid)
}

// stopInit ends a sandbox's init; one that is not there is success.
func (r *Runtime) stopInit(ctx context.Context, p *podState, sandboxID string) error {
	id := initID(sandboxID)
	if err := r.signal(ctx, id, 9, true); err != nil {
		return err
	}
	_, err := r.client.TaskService().Wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
	if err := ignoreNotFound(errgrpc.ToNative(err)); err != nil {
		return fmt.Errorf("wait for the init process to end: %w", err)
	}
	p.shim.Lock()
	defer p.shim.Unlock()
	_, err = r.client.TaskService().Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	if err := ignoreNotFound(errgrpc.ToNative(err)); err != nil {
		return fmt.Errorf("delete the init process: %w", err)
	}
	r.mu.Lock()
	p.init = false
	r.mu.Unlock()
	if err := r.tidyShim(p); err != nil {
		return err
	}
	return ignoreNotFound(r.client.ContainerService().Delete(ctx, id))
}

// initRootfs is a directory with the init program and the places that runc
// mounts on. It is the same for every pod.
func (r *Runtime) initRootfs() (string, error) {
	dir := filepath.Join(r.cfg.RootDir, "init")
	for _, sub := range []string{"proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	program, err := initProgram(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, initArgs)
	if have, err := os.ReadFile(file); err == nil && string(have) == string(program) {
		return dir, nil
	}
	return dir, writeFileAtomically(file, program, 0o755)
}

// initProgram is the init as an ELF file.
func initProgram(arch string) ([]byte, error) {
	var machine uint16
	var code []byte
	switch arch {
	case "amd64":
		machine = 62
		code = []byte{
			0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
			0xbf, 17, 0, 0, 0, // mov edi, SIGCHLD
			0x48, 0x8d, 0x35, 23, 0, 0, 0, // lea rsi, [rip+23]: the action below
			0x31, 0xd2, // xor edx, edx
			0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
			0x0f, 0x05, // syscall
			0xb8, 34, 0, 0, 0, // mov eax, pause
			0x0f, 0x05, // syscall
			0xeb, 0xf7, // jmp to mov eax, pause
			0, 0, 0, 0, // to a multiple of eight
		}
	case "arm64":
		machine = 183
		for _, instruction := range []uint32{
			0xd28010c8, // mov x8, rt_sigaction
			0xd2800220, // mov x0, SIGCHLD
			0x10000181, // adr x1, +48: the action below
			0xd2800002, // mov x2, 0
			0xd2800103, // mov x3, 8
			0xd4000001, // svc 0
			0xd2800000, // mov x0, 0
			0xd2800001, // mov x1, 0
			0xd2800002, // mov x2, 0
			0xd2800003, // mov x3, 0
			0xd2800004, // mov x4, 0
			0xd2800928, // mov x8, ppoll
			0xd4000001, // svc 0
			0x17fffff9, // b to mov x0, 0
		} {
			code = binary.LittleEndian.AppendUint32(code, instruction)
		}
	default:
		return nil, errors.New("shareProcessNamespace is not available on " + arch)
	}
	const sigIgn, noChildWait = 1, 2
	for _, word := range []uint64{sigIgn, noChildWait, 0, 0} { // handler, flags, restorer, mask
		code = binary.LittleEndian.AppendUint64(code, word)
	}
	return append(elfHeader(machine, len(code)), code...), nil
}

// elfHeader is the header of a static program with one segment that holds
// header and code.
func elfHeader(machine uint16, codeSize int) []byte {
	const base, headers = 0x400000, 64 + 56
	le := binary.LittleEndian
	h := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	h = le.AppendUint16(h, 2)                        // an executable
	h = le.AppendUint16(h, machine)                  //
	h = le.AppendUint32(h, 1)                        // version
	h = le.AppendUint64(h, base+headers)             // entry
	h = le.AppendUint64(h, 64)                       // program headers follow
	h = le.AppendUint64(h, 0)                        // no sections
	h = le.AppendUint32(h, 0)                        // flags
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} { // sizes and counts
		h = le.AppendUint16(h, v)
	}
	h = le.AppendUint32(h, 1) // load
	h = le.AppendUint32(h, 5) // readable and executable
	for _, v := range []uint64{0, base, base, uint64(headers + codeSize), uint64(headers + codeSize), 0x10000} {
		h = le.AppendUint64(h, v)
	}
	return h
}
