package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// statusTimeout bounds the plugins' STATUS, which New waits for as well.
const statusTimeout = 10 * time.Second

// load reads the first configuration file in lexical order, as every CNI
// runtime does, and says what is missing to use it.
func (c *CNI) load(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	list, err := readConf(c.cfg.ConfDir)
	if err == nil {
		err = c.cfg.OnHost(func() error { return c.usable(ctx, list) })
	}

	c.mu.Lock()
	wasList, wasErr := c.list, c.err
	c.list, c.err = list, err
	c.mu.Unlock()

	switch {
	case err != nil && (wasErr == nil || wasErr.Error() != err.Error()):
		c.cfg.Log.Warn("network is not ready", "err", err)
	case err == nil && (wasErr != nil || wasList == nil || !bytes.Equal(wasList.Bytes, list.Bytes)):
		c.cfg.Log.Info("network is ready", "network", list.Name)
	}
}

// usable says why the plugins of a network cannot be used.
func (c *CNI) usable(ctx context.Context, list *libcni.NetworkConfigList) error {
	if err := c.findPlugins(list); err != nil {
		return err
	}
	// Runs nothing below CNI 1.1.0, which has no STATUS.
	if cause := c.cni.GetStatusNetworkList(ctx, list); cause != nil {
		return &PluginError{Verb: "STATUS", Network: list.Name, Err: cause}
	}
	return nil
}

func readConf(dir string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, &ConfigError{File: dir, Err: err}
	}
	if len(files) == 0 {
		return nil, &ConfigError{File: dir, Err: errors.New("no .conflist or .conf file: install a CNI network")}
	}
	file := slices.Min(files)
	list, err := readFile(file)
	if err != nil {
		return nil, &ConfigError{File: file, Err: err}
	}
	return list, nil
}

func readFile(file string) (*libcni.NetworkConfigList, error) {
	if filepath.Ext(file) == ".conflist" {
		return libcni.NetworkConfFromFile(file)
	}
	// One plugin in a file of its own left the specification with CNI 1.0, and
	// machines still have them.
	conf, err := libcni.ConfFromFile(file) //nolint:staticcheck // deprecated format, still found on machines
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(conf) //nolint:staticcheck // deprecated format, still found on machines
}

// findPlugins checks that every plugin of the list, and the address manager of
// each, can be executed.
func (c *CNI) findPlugins(list *libcni.NetworkConfigList) error {
	var missing []string
	need := func(plugin string) {
		if plugin == "" || slices.Contains(missing, plugin) {
			return
		}
		if _, err := c.exec.FindInPath(plugin, c.cfg.BinDirs); err != nil {
			missing = append(missing, plugin)
		}
	}
	for _, p := range list.Plugins {
		need(p.Network.Type)
		need(p.Network.IPAM.Type)
	}
	if len(missing) > 0 {
		return &ConfigError{File: c.cfg.ConfDir, Err: &MissingPluginError{Plugins: missing, Dirs: c.cfg.BinDirs}}
	}
	return nil
}

// current returns the network to attach to.
func (c *CNI) current() (*libcni.NetworkConfigList, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, c.err)
	}
	return c.list, nil
}

// Ready returns nil if a pod can be attached, else an error which matches
// ErrNotReady and says what to mend.
func (c *CNI) Ready() error {
	_, err := c.current()
	return err
}
