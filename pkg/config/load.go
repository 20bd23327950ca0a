package config

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Load reads a configuration file. A field that does not exist, or exists twice,
// is an error that names it. Problems of values are for Validate.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return c, nil
}

// Parse is Load for a file that was read already.
func Parse(data []byte) (Config, error) {
	docs := documents(data)
	profile := profileOf(docs)
	c := Config{Agent: DefaultOf(profile).Agent}
	fields := map[string]bool{} // of the kubelet's document
	seen := map[string]bool{}
	var errs []error
	for _, doc := range docs {
		text, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if string(text) == "null" { // nothing but comments
			continue
		}
		var kind metav1.TypeMeta
		if err := json.UnmarshalCaseSensitivePreserveInts(text, &kind); err != nil {
			errs = append(errs, fmt.Errorf("want documents with apiVersion and kind: %w", err))
			continue
		}
		if seen[kind.Kind] {
			errs = append(errs, fmt.Errorf("two documents of kind %s", kind.Kind))
			continue
		}
		seen[kind.Kind] = true
		switch kind {
		case metav1.TypeMeta{APIVersion: KubeletAPIVersion, Kind: KubeletKind}:
			c.kubeletLines = linesOf(doc)
			errs = append(errs, strict(text, c.kubeletLines, &c.Kubelet))
			fields = fieldsOf(text)
		case metav1.TypeMeta{APIVersion: AgentAPIVersion, Kind: AgentKind}:
			c.agentLines = linesOf(doc)
			errs = append(errs, strict(text, c.agentLines, &c.Agent))
		default:
			errs = append(errs, fmt.Errorf("unknown kind %q of %q: want %s of %s or %s of %s", kind.Kind, kind.APIVersion,
				KubeletKind, KubeletAPIVersion, AgentKind, AgentAPIVersion))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	c.complete(DefaultOf(profile))
	c.Unsupported = c.unsupported(fields)
	return c, nil
}

// profileOf is the profile that a file asks for: it decides the defaults, and so
// is needed before the rest. What is wrong with the file is for others to say.
func profileOf(docs [][]byte) string {
	for _, doc := range docs {
		var agent struct {
			Kind    string `json:"kind"`
			Profile string `json:"profile"`
		}
		if err := yaml.Unmarshal(doc, &agent); err == nil && agent.Kind == AgentKind {
			return agent.Profile
		}
	}
	return ""
}

// documents divides a file at its lines of "---". Each part keeps its place, by
// empty lines, so that the lines in errors are those of the file.
func documents(data []byte) [][]byte {
	var out [][]byte
	var doc bytes.Buffer
	lines := 0
	for line := range bytes.Lines(data) {
		lines++
		if rest, ok := bytes.CutPrefix(line, []byte("---")); ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n")) {
			out = append(out, slices.Clone(doc.Bytes()))
			doc.Reset()
			doc.Write(bytes.Repeat([]byte("\n"), lines))
			continue
		}
		doc.Write(line)
	}
	return append(out, doc.Bytes())
}

// strict decodes a document, field by field, and names all that is wrong with it.
func strict(text []byte, at lines, into any) error {
	var doc map[string]stdjson.RawMessage
	if err := stdjson.Unmarshal(text, &doc); err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		field, err := stdjson.Marshal(map[string]stdjson.RawMessage{name: doc[name]})
		if err != nil {
			return err
		}
		unknown, err := json.UnmarshalStrict(field, into)
		if err != nil {
			errs = append(errs, at.wrongType(name, field, into, err))
		}
		for _, e := range unknown {
			errs = append(errs, at.unknown(name, e))
		}
	}
	return errors.Join(errs...)
}

// fieldsOf are the names of the fields that a document sets.
func fieldsOf(text []byte) map[string]bool {
	var doc map[string]any
	out := map[string]bool{}
	if json.UnmarshalCaseSensitivePreserveInts(text, &doc) == nil { // it was decoded before
		for name := range doc {
			out[name] = true
		}
	}
	return out
}

// complete fills in what was left out. As with the kubelet, a number of 0 or an
// empty text is left out; an empty list or map is not.
func (c *Config) complete(defaults Config) {
	if k := &c.Kubelet; k.EvictionHard != nil && k.MergeDefaultEvictionSettings != nil && *k.MergeDefaultEvictionSettings {
		merged := defaultEvictionHard()
		maps.Copy(merged, k.EvictionHard)
		k.EvictionHard = merged
	}
	if k := &c.Kubelet; k.NodeStatusReportFrequency.Duration == 0 {
		k.NodeStatusReportFrequency = k.NodeStatusUpdateFrequency // as with the kubelet; both left out are the default
	}
	value, from := reflect.ValueOf(&c.Kubelet).Elem(), reflect.ValueOf(&defaults.Kubelet).Elem()
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			value.Field(i).Set(from.Field(i))
		}
	}
	completeAPI(&c.Kubelet, &defaults.Kubelet)
	// Two fields are the kubelet's names for what is ours as well.
	agent := defaults.Agent
	if dir := c.Kubelet.PodLogsDir; dir != "" && c.Agent.LogDir == agent.LogDir {
		c.Agent.LogDir = strings.TrimSuffix(dir, "/")
	}
	if d := c.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod; d != nil && c.Agent.CrashLoopBackOff == agent.CrashLoopBackOff {
		c.Agent.CrashLoopBackOff.Max = *d
		c.Agent.CrashLoopBackOff.Initial.Duration = min(c.Agent.CrashLoopBackOff.Initial.Duration, d.Duration)
	}
}

// honoured are the kubelet's fields that have their effect here. Whoever gives
// another one its effect adds it.
func honoured() []string {
	return []string{
		"apiVersion", "kind", "staticPodPath", "fileCheckFrequency", "cgroupDriver", "cgroupRoot", "cgroupsPerQOS",
		"enforceNodeAllocatable", "kubeReserved", "systemReserved", "evictionHard", "mergeDefaultEvictionSettings",
		"podPidsLimit", "maxPods", "cpuCFSQuota", "cpuCFSQuotaPeriod", "memorySwap", "memoryThrottlingFactor",
		"memoryReservationPolicy", "singleProcessOOMKill", "containerLogMaxSize", "containerLogMaxFiles", "clusterDNS",
		"clusterDomain", "resolvConf", "allowedUnsafeSysctls", "seccompDefault", "containerRuntimeEndpoint", "podLogsDir",
		"crashLoopBackOff", "systemReservedCgroup", "kubeReservedCgroup", "reservedSystemCPUs", "podsPerCore", "qosReserved",
		"featureGates", "oomScoreAdj", "serializeImagePulls", "maxParallelImagePulls", "imageGCHighThresholdPercent",
		"enableServer", "address", "port", "tlsCertFile", "tlsPrivateKeyFile", "tlsCipherSuites", "tlsMinVersion",
		"authentication", "authorization", "enableDebuggingHandlers", "healthzPort", "healthzBindAddress", "streamingConnectionIdleTimeout",
		"imageGCLowThresholdPercent", "imageMinimumGCAge", "imageMaximumGCAge", "evictionPressureTransitionPeriod",
		"shutdownGracePeriod", "shutdownGracePeriodCriticalPods", "shutdownGracePeriodByPodPriority", "rotateCertificates", "serverTLSBootstrap", "registerNode", "registerWithTaints", "providerID", "nodeStatusUpdateFrequency", "nodeStatusReportFrequency",
		"nodeStatusMaxImages", "nodeLeaseDurationSeconds",
	}
}

// unsupported lists the fields of a document that ask for something that does
// not happen. A field that asks for the default is no disappointment.
func (c Config) unsupported(set map[string]bool) []string {
	value, base := reflect.ValueOf(c.Kubelet), reflect.ValueOf(DefaultOf(c.Agent.Profile).Kubelet)
	var out []string
	for field, v := range value.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if set[name] && !slices.Contains(honoured(), name) && !reflect.DeepEqual(v.Interface(), base.FieldByIndex(field.Index).Interface()) {
			out = append(out, name)
		}
	}
	for gate := range c.Kubelet.FeatureGates {
		if gate != "MemoryQoS" && gate != "QOSReserved" {
			out = append(out, fmt.Sprintf("featureGates[%s]", gate))
		}
	}
	slices.Sort(out)
	return out
}
