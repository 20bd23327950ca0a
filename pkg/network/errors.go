package network

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// ErrNotReady is matched by every error of Ready, and by those of Add which have
// the same cause: no pod can be attached until the machine's configuration changes.
var ErrNotReady = errors.New("network is not ready")

// ConfigError says which configuration file cannot be used, and why.
type ConfigError struct {
	File string
	Err  error
}

func (e *ConfigError) Error() string { return fmt.Sprintf("CNI configuration %s: %v", e.File, e.Err) }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// MissingPluginError names the plugins that a configuration uses and no
// directory has.
type MissingPluginError struct {
	Plugins []string
	Dirs    []string
}

func (e *MissingPluginError) Error() string {
	return fmt.Sprintf("CNI plugins %s not found in %s",
		strings.Join(e.Plugins, ", "), strings.Join(e.Dirs, ", "))
}

// PluginError is a plugin's own refusal.
type PluginError struct {
	Verb    string // ADD, DEL, CHECK or STATUS
	Network string
	Err     error
}

func (e *PluginError) Error() string {
	return fmt.Sprintf("CNI %s on network %s: %v", e.Verb, e.Network, e.Err)
}

// Unwrap returns the cause.
func (e *PluginError) Unwrap() error { return e.Err }

// Temporary reports whether the plugin asked to be called again later.
func (e *PluginError) Temporary() bool {
	var cause *types.Error
	return errors.As(e.Err, &cause) && cause.Code == types.ErrTryAgainLater
}

// AnnotationError is a pod annotation whose value cannot be honoured.
type AnnotationError struct {
	Key, Value string
	Err        error
}

func (e *AnnotationError) Error() string {
	return fmt.Sprintf("annotation %s=%q: %v", e.Key, e.Value, e.Err)
}

// Unwrap returns the cause.
func (e *AnnotationError) Unwrap() error { return e.Err }
