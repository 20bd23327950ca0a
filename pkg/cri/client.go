package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// runtimeName is containerd's name of the runc shim.
	runtimeName = "io.containerd.runc.v2"
	// cleanupTimeout bounds work that must be done although its caller gave up.
	cleanupTimeout = 10 * time.Second
	// startTimeout bounds the creation and start of a process, on a machine that is
	// busy with many.
	startTimeout = 2 * time.Minute
)

// Config says how a Runtime reaches containerd and where it keeps its files.
type Config struct {
	// Address is containerd's socket, Namespace our containerd namespace.
	Address, Namespace string
	Snapshotter        string
	// StateDir is gone after a reboot; RootDir stays.
	StateDir, RootDir string
	// LogDir holds log files, ContainerLogDir the links to them.
	LogDir, ContainerLogDir string
	// RuncBinary is runc's path; empty means the shim looks it up.
	RuncBinary    string
	SystemdCgroup bool
	CgroupV2      bool
	Network       Network
	// Wake is told which pod to look at again; it must not block.
	Wake func(uid types.UID)
	// MaxParallelStarts bounds how many runc processes create containers at
	// once; 0 means twice the number of CPUs.
	MaxParallelStarts int
	// LogMaxSize (bytes) and LogMaxFiles rule log rotation.
	LogMaxSize  int64
	LogMaxFiles int
	// HoldCommand starts the log holder; see Holder. HoldStart starts the command,
	// where it has to be so that it outlives this process; nil just starts it.
	HoldCommand []string
	HoldStart   func(*exec.Cmd) error
	Log         *slog.Logger
}

// Runtime runs pods on one containerd. Its methods are safe for concurrent use.
type Runtime struct {
	cfg    Config
	client *containerd.Client
	holder *Holder
	users  userCache
	bootID string
	// creates bounds parallel runc creates.
	creates chan struct{}

	// work owns the goroutine of each running container (its exit, its log
	// pump). They end with life, which New makes and Run cancels.
	work errgroup.Group
	life context.Context //nolint:containedctx // goroutines start before Run and end with it
	end  context.CancelFunc

	mu   sync.Mutex // guards pods and everything below them; never held across I/O
	pods map[types.UID]*podState
	// adopted says that pods holds all there is.
	adopted bool
}

// New connects to containerd and takes over what is there: afterwards Pods is
// the truth. It fails when containerd does not answer within ctx.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.MaxParallelStarts == 0 {
		cfg.MaxParallelStarts = 2 * runtime.NumCPU()
	}
	if cfg.Wake == nil {
		cfg.Wake = func(types.UID) {}
	}
	opts := []containerd.Opt{containerd.WithDefaultNamespace(cfg.Namespace), containerd.WithDefaultRuntime(runtimeName)}
	if cfg.Log.Enabled(ctx, slog.LevelDebug) {
		opts = append(opts, containerd.WithExtraDialOpts([]grpc.DialOption{grpc.WithChainUnaryInterceptor(logCalls(cfg.Log))}))
	}
	client, err := containerd.New(cfg.Address, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", cfg.Address, err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	r := &Runtime{
		cfg: cfg, client: client, bootID: boot,
		creates: make(chan struct{}, cfg.MaxParallelStarts),
		pods:    map[types.UID]*podState{},
	}
	r.life, r.end = context.WithCancel(context.WithoutCancel(ctx))
	r.holder = NewHolder(cfg.StateDir, cfg.HoldCommand, cfg.Log)
	if cfg.HoldStart != nil {
		r.holder.start = cfg.HoldStart
	}
	if err := r.adopt(ctx); err != nil {
		r.end()
		return nil, errors.Join(fmt.Errorf("take over pods: %w", err), r.work.Wait(), client.Close())
	}
	return r, nil
}

// logCalls tells how long each call of containerd takes.
func logCalls(log *slog.Logger) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		begin := time.Now()
		err := call(ctx, method, req, reply, conn, opts...)
		log.Debug("containerd called", "method", method, "took", time.Since(begin), "err", err)
		return err
	}
}

// Client is the connection, for those who share it.
func (r *Runtime) Client() *containerd.Client { return r.client }

// Run keeps the runtime going until ctx ends. No container is stopped then.
func (r *Runtime) Run(ctx context.Context) error {
	<-ctx.Done()
	r.end()
	return errors.Join(r.work.Wait(), r.holder.Close(), r.client.Close())
}

// spawn runs f until the runtime ends.
func (r *Runtime) spawn(f func(ctx context.Context)) {
	r.work.Go(func() error {
		f(r.life)
		return nil
	})
}

// detached is a context for work that must be finished although ctx may end.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}
