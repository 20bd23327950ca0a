package cri

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// shmSize is what the field gives /dev/shm: 64 MiB.
const shmSize = "size=65536k"

// writeSandboxFiles writes what does not need the pod's address.
func (r *Runtime) writeSandboxFiles(cfg *SandboxConfig, record *sandboxRecord) error {
	dir := r.sandboxDir(record.UID)
	hostname := cfg.Hostname
	if record.HostNetwork {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		hostname = name
	}
	if err := os.WriteFile(filepath.Join(dir, "hostname"), []byte(hostname+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), renderResolv(cfg.Resolv), 0o644); err != nil {
		return err
	}
	if record.IPCNS == "" {
		return nil // the host's /dev/shm
	}
	shm := filepath.Join(dir, "shm")
	if err := os.MkdirAll(shm, 0o700); err != nil {
		return err
	}
	flags := uintptr(unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("shm", shm, "tmpfs", flags, "mode=1777,"+shmSize); err != nil {
		return fmt.Errorf("mount /dev/shm of the pod: %w", err)
	}
	return nil
}

func renderResolv(resolv Resolv) []byte {
	var b bytes.Buffer
	if len(resolv.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(resolv.Searches, " "))
	}
	for _, s := range resolv.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(resolv.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(resolv.Options, " "))
	}
	return b.Bytes()
}

// writeHosts writes /etc/hosts: the pod's own, or the node's with host network;
// the pod's aliases follow.
func (r *Runtime) writeHosts(cfg *SandboxConfig, record *sandboxRecord) error {
	var b bytes.Buffer
	if record.HostNetwork {
		node, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(node)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range record.IPs {
			if cfg.Domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, cfg.Hostname, cfg.Domain, cfg.Hostname)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, cfg.Hostname)
			}
		}
	}
	if aliases := cfg.Pod.Spec.HostAliases; len(aliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range aliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return os.WriteFile(filepath.Join(r.sandboxDir(record.UID), "hosts"), b.Bytes(), 0o644)
}
