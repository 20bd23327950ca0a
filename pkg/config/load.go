package config

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Load reads a configuration file on top of the defaults. A field that does not
// exist is an error that names it. Problems of values are for Validate.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse is Load for a file that was read already.
func Parse(data []byte) (Config, error) {
	c := Default()
	seen := map[string]bool{}
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return Config{}, err
		}
		if len(bytes.TrimSpace(stripComments(doc))) == 0 {
			continue
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			return Config{}, err
		}
		key := kind.APIVersion + " " + kind.Kind
		if seen[key] {
			return Config{}, fmt.Errorf("two documents of kind %s", kind.Kind)
		}
		seen[key] = true
		switch key {
		case KubeletAPIVersion + " " + KubeletKind:
			if c.Unsupported, err = unsupported(doc); err != nil {
				return Config{}, err
			}
			err = yaml.UnmarshalStrict(doc, &c.Kubelet)
		case AgentAPIVersion + " " + AgentKind:
			err = yaml.UnmarshalStrict(doc, &c.Agent)
		default:
			err = fmt.Errorf("unknown kind %q of %q: want %s of %s or %s of %s", kind.Kind, kind.APIVersion,
				KubeletKind, KubeletAPIVersion, AgentKind, AgentAPIVersion)
		}
		if err != nil {
			return Config{}, fmt.Errorf("%s: %w", kind.Kind, err)
		}
	}
}

// stripComments leaves what is not a comment line, to tell an empty document.
func stripComments(doc []byte) []byte {
	var out []byte
	for line := range bytes.Lines(doc) {
		if t := bytes.TrimSpace(line); len(t) > 0 && t[0] != '#' && !bytes.Equal(t, []byte("---")) {
			out = append(out, line...)
		}
	}
	return out
}

// honoured are the kubelet's fields that have their effect here.
func honoured() []string {
	return []string{
		"apiVersion", "kind", "staticPodPath", "fileCheckFrequency", "cgroupDriver", "cgroupRoot", "cgroupsPerQOS",
		"enforceNodeAllocatable", "kubeReserved", "systemReserved", "evictionHard", "podPidsLimit", "maxPods", "podsPerCore",
		"cpuCFSQuota", "cpuCFSQuotaPeriod", "memorySwap", "failSwapOn", "failCgroupV1", "memoryThrottlingFactor",
		"memoryReservationPolicy", "singleProcessOOMKill", "containerLogMaxSize", "containerLogMaxFiles", "clusterDNS",
		"clusterDomain", "resolvConf", "allowedUnsafeSysctls", "seccompDefault", "containerRuntimeEndpoint", "podLogsDir",
		"crashLoopBackOff", "serializeImagePulls",
	}
}

// unsupported lists the fields of a document that exist and have no effect.
func unsupported(doc []byte) ([]string, error) {
	data, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	var out []string
	for f := range fields {
		if !slices.Contains(honoured(), f) && slices.Contains(known(), f) {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out, nil
}

// known are the names of all fields of the kubelet's configuration.
func known() []string {
	var out []string
	t := reflect.TypeOf(Config{}.Kubelet)
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}
