package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
)

// undoTimeout bounds the DEL after a failed ADD. A plugin which hangs longer is
// called again when the pod ends.
const undoTimeout = 30 * time.Second

// Config says where CNI lives on this machine.
type Config struct {
	ConfDir  string   // network configurations, usually /etc/cni/net.d
	BinDirs  []string // plugins, usually /opt/cni/bin
	CacheDir string   // results; belongs to this agent alone, may vanish with a reboot
	// OnHost calls a func with the machine's own view of its files, for an agent that
	// lives in a container: plugins want their libraries, sockets, iptables. Nil is
	// for one that has that view anyway.
	OnHost func(func() error) error
	Log    *slog.Logger
}

// CNI attaches pods to the network. Its methods may be called concurrently; the
// plugins do their own locking.
type CNI struct {
	cfg  Config
	cni  *libcni.CNIConfig
	exec invoke.Exec

	mu   sync.Mutex // guards the fields below; never held while a plugin runs
	list *libcni.NetworkConfigList
	err  error // why list cannot be used
}

// New reads the configuration once. A machine without a network yet is not an
// error here: Ready reports it, and Run notices when it appears.
func New(cfg Config) *CNI {
	exec := &invoke.DefaultExec{
		RawExec:       &invoke.RawExec{Stderr: &logWriter{log: cfg.Log}},
		PluginDecoder: version.PluginDecoder{},
	}
	c := &CNI{
		cfg:  cfg,
		exec: exec,
		cni:  libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.CacheDir, exec),
	}
	if c.cfg.OnHost == nil {
		c.cfg.OnHost = func(f func() error) error { return f() }
	}
	c.load(context.Background())
	return c
}

// Add attaches the namespace and returns the pod's addresses, primary first, and
// the plugins' result as JSON. A failed Add has been undone.
func (c *CNI) Add(ctx context.Context, sandboxID, netnsPath, cgroupPath string, pod *corev1.Pod) (ips []string, result []byte, err error) {
	list, err := c.current()
	if err != nil {
		return nil, nil, err
	}
	rt, err := request(sandboxID, netnsPath, cgroupPath, pod)
	if err != nil {
		return nil, nil, err
	}
	for _, capability := range unmet(list, rt.CapabilityArgs) {
		c.cfg.Log.Warn("network has no such capability; the pod's request for it is ignored unless the network does it by itself",
			"capability", capability, "network", list.Name, "pod", pod.Namespace+"/"+pod.Name)
	}
	pruned, err := prune(list, rt.CapabilityArgs)
	if err != nil {
		return nil, nil, err
	}
	if err := loopbackUp(netnsPath); err != nil {
		return nil, nil, err
	}
	var raw types.Result
	err = c.cfg.OnHost(func() (err error) {
		raw, err = c.cni.AddNetworkList(ctx, pruned, rt)
		return err
	})
	if err == nil {
		ips, result, err = addresses(raw)
	}
	if err != nil {
		err = &PluginError{Verb: "ADD", Network: list.Name, Err: err}
		return nil, nil, errors.Join(err, c.undo(ctx, list, rt))
	}
	return ips, result, nil
}

// undo runs the whole list's DEL, whatever the request's context says: a plugin
// may have allocated an address although it, or its successor, failed.
func (c *CNI) undo(ctx context.Context, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := c.cfg.OnHost(func() error { return c.cni.DelNetworkList(ctx, list, rt) }); err != nil {
		return &PluginError{Verb: "DEL", Network: list.Name, Err: err}
	}
	return nil
}

// Del detaches the pod from every network it was attached to. It may be called
// any number of times, also when Add never ran or failed, and also when the
// namespace is gone. The pod needs its name, namespace, UID and ports only.
func (c *CNI) Del(ctx context.Context, sandboxID, netnsPath string, pod *corev1.Pod) error {
	if ns.IsNSorErr(netnsPath) != nil {
		netnsPath = "" // CNI: release what is outside of the namespace
	}
	attached, err := c.cni.GetCachedAttachments(sandboxID)
	if err != nil {
		return fmt.Errorf("list networks of sandbox %s: %w", sandboxID, err)
	}
	if len(attached) == 0 {
		return c.delUnrecorded(ctx, sandboxID, netnsPath, pod)
	}
	var errs []error
	for _, a := range attached {
		list, err := libcni.NetworkConfFromBytes(a.Config)
		if err != nil {
			errs = append(errs, fmt.Errorf("decode network %s of sandbox %s: %w", a.Network, sandboxID, err))
			continue
		}
		rt := &libcni.RuntimeConf{
			ContainerID: sandboxID, NetNS: netnsPath, IfName: a.IfName, Args: a.CniArgs, CapabilityArgs: a.CapabilityArgs,
		}
		if err := c.cfg.OnHost(func() error { return c.cni.DelNetworkList(ctx, list, rt) }); err != nil {
			errs = append(errs, &PluginError{Verb: "DEL", Network: a.Network, Err: err})
		}
	}
	return errors.Join(errs...)
}

// delUnrecorded covers an Add which was interrupted before libcni recorded it:
// the network it used is the current one, or there is none to ask.
func (c *CNI) delUnrecorded(ctx context.Context, sandboxID, netnsPath string, pod *corev1.Pod) error {
	list, err := c.current()
	if err != nil {
		c.cfg.Log.Debug("no network to detach from", "sandbox", sandboxID, "err", err)
		return nil
	}
	rt, err := request(sandboxID, netnsPath, "", withoutAnnotations(pod))
	if err != nil {
		return err
	}
	if err := c.cfg.OnHost(func() error { return c.cni.DelNetworkList(ctx, list, rt) }); err != nil {
		return &PluginError{Verb: "DEL", Network: list.Name, Err: err}
	}
	return nil
}

// withoutAnnotations keeps a bad annotation, which Add has refused, from
// refusing Del as well.
func withoutAnnotations(pod *corev1.Pod) *corev1.Pod {
	plain := *pod
	plain.Annotations = nil
	return &plain
}

// Check asks the plugins whether the attachment is as Add left it.
func (c *CNI) Check(ctx context.Context, sandboxID, netnsPath string) error {
	attached, err := c.cni.GetCachedAttachments(sandboxID)
	if err != nil {
		return fmt.Errorf("list networks of sandbox %s: %w", sandboxID, err)
	}
	if len(attached) == 0 {
		return fmt.Errorf("sandbox %s: no network attached", sandboxID)
	}
	var errs []error
	for _, a := range attached {
		list, err := libcni.NetworkConfFromBytes(a.Config)
		if err != nil {
			errs = append(errs, fmt.Errorf("decode network %s of sandbox %s: %w", a.Network, sandboxID, err))
			continue
		}
		rt := &libcni.RuntimeConf{
			ContainerID: sandboxID, NetNS: netnsPath, IfName: a.IfName, Args: a.CniArgs, CapabilityArgs: a.CapabilityArgs,
		}
		if err := c.cfg.OnHost(func() error { return c.cni.CheckNetworkList(ctx, list, rt) }); err != nil {
			errs = append(errs, &PluginError{Verb: "CHECK", Network: a.Network, Err: err})
		}
	}
	return errors.Join(errs...)
}

// addresses returns the addresses of the pod's own interfaces, IPv4 first, as
// the kubelet reports them.
func addresses(raw types.Result) (ips []string, result []byte, err error) {
	r, err := types100.NewResultFromResult(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("convert result: %w", err)
	}
	for _, ip := range r.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(r.Interfaces) && r.Interfaces[*i].Sandbox == "" {
			continue // an address of the host's side
		}
		ips = append(ips, ip.Address.IP.String())
	}
	if len(ips) == 0 {
		return nil, nil, errors.New("the plugins returned no address")
	}
	slices.SortStableFunc(ips, func(a, b string) int { return family(a) - family(b) })
	result, err = json.Marshal(r)
	if err != nil {
		return nil, nil, fmt.Errorf("encode result: %w", err)
	}
	return ips, result, nil
}

func family(ip string) int {
	if addr, err := netip.ParseAddr(ip); err == nil && addr.Is4() {
		return 4
	}
	return 6
}

// loopbackUp brings lo up; no plugin process is needed for one netlink message.
func loopbackUp(netnsPath string) error {
	err := ns.WithNetNSPath(netnsPath, func(ns.NetNS) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return fmt.Errorf("bring up lo in %s: %w", netnsPath, err)
	}
	return nil
}

// logWriter takes what plugins print beside their result.
type logWriter struct{ log *slog.Logger }

func (w *logWriter) Write(p []byte) (int, error) {
	w.log.Debug("CNI plugin said", "text", string(bytes.TrimSpace(p)))
	return len(p), nil
}

// ensureDir makes the configuration directory, so that it can be watched.
func ensureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // every CNI runtime and installer reads it
		return fmt.Errorf("make CNI configuration directory: %w", err)
	}
	return nil
}
