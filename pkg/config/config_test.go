package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// withoutLines compares what a configuration says, not where it says it.
func withoutLines() cmp.Option { return cmpopts.IgnoreUnexported(Config{}) }

const (
	kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	agent   = "apiVersion: nodeagent.dev/v1alpha1\nkind: NodeAgentConfiguration\n"
)

const sample = "../../manifests/config/nodeagent.yaml"

func TestSampleIsTheDefault(t *testing.T) {
	got, err := Load(sample)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got, withoutLines()); diff != "" {
		t.Errorf("the sample says it shows the defaults, -default +sample:\n%s", diff)
	}
	if errs := got.Validate(); len(errs) > 0 {
		t.Errorf("problems: %v", errs)
	}
}

func TestExamplesInTheSample(t *testing.T) {
	data, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^# ([a-zA-Z]+: )`).ReplaceAllString(string(data), "$1")
	// These are prose.
	text = regexp.MustCompile(`(?m)^(pods|external|embedded|auto|out|not|rest|holds): `).ReplaceAllString(text, "# ")
	got, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if errs := got.Validate(); len(errs) > 0 {
		t.Errorf("problems: %v", errs)
	}
	if len(got.Unsupported) > 0 {
		t.Errorf("the sample offers what has no effect: %v", got.Unsupported)
	}
	if got.Kubelet.CgroupDriver != "systemd" || got.Agent.NodeName != "edge-1" || len(got.Kubelet.SystemReserved) != 3 {
		t.Errorf("the examples were not read: %+v", got)
	}
}

func TestParse(t *testing.T) {
	cases := map[string]struct {
		reason string
		text   string
		change func(*Config)
	}{
		"Empty":        {"no file content, no change", "", func(*Config) {}},
		"Comments":     {"a document of comments only", "# a\n---\n# b\n---\n" + kubelet, func(*Config) {}},
		"Kubelet":      {"a value replaces the default", kubelet + "maxPods: 10\n", func(c *Config) { c.Kubelet.MaxPods = 10 }},
		"Zero":         {"a number of 0 is left out, as with the kubelet", kubelet + "maxPods: 0\n", func(*Config) {}},
		"Pointer":      {"false is a value", kubelet + "cpuCFSQuota: false\n", func(c *Config) { c.Kubelet.CPUCFSQuota = new(false) }},
		"EmptyList":    {"an empty list is a value", kubelet + "enforceNodeAllocatable: []\n", func(c *Config) { c.Kubelet.EnforceNodeAllocatable = []string{} }},
		"NoResolvConf": {"an empty text behind a pointer is a value", kubelet + "resolvConf: \"\"\n", func(c *Config) { c.Kubelet.ResolverConfig = new("") }},
		"EvictionReplaces": {"a map replaces the default as a whole", kubelet + "evictionHard: {memory.available: 5%}\n", func(c *Config) {
			c.Kubelet.EvictionHard = map[string]string{"memory.available": "5%"}
		}},
		"EvictionMerges": {"unless it is to be merged", kubelet + "evictionHard: {memory.available: 5%}\nmergeDefaultEvictionSettings: true\n", func(c *Config) {
			c.Kubelet.EvictionHard["memory.available"] = "5%"
			c.Kubelet.MergeDefaultEvictionSettings = new(true)
		}},
		"Both": {"two documents in any order", agent + "runtime: external\ncniBinDirs: [/x]\n--- # next\n" + kubelet + "podPidsLimit: 7\n", func(c *Config) {
			c.Agent.Runtime, c.Agent.CNIBinDirs = RuntimeExternal, []string{"/x"}
			c.Kubelet.PodPidsLimit = new(int64(7))
		}},
		"NoDelay": {"a delay of 0 is a value", agent + "crashLoopBackOff: {initial: 0s}\n", func(c *Config) { c.Agent.CrashLoopBackOff.Initial = duration(0) }},
		"RestartPeriod": {"the kubelet's name for our maximum", kubelet + "crashLoopBackOff: {maxContainerRestartPeriod: 5s}\n", func(c *Config) {
			c.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod = new(duration(5 * time.Second))
			c.Agent.CrashLoopBackOff = CrashLoopBackOff{Initial: duration(5 * time.Second), Max: duration(5 * time.Second)}
		}},
		"PodLogsDir": {"the kubelet's name for our log directory", kubelet + "podLogsDir: /logs/\n", func(c *Config) {
			c.Kubelet.PodLogsDir, c.Agent.LogDir = "/logs/", "/logs"
		}},
		"Unsupported": {"valid, and without an effect", kubelet + "readOnlyPort: 10255\nsyncFrequency: 2m\nserializeImagePulls: true\nimageGCHighThresholdPercent: 90\n", func(c *Config) {
			c.Kubelet.ReadOnlyPort = 10255
			c.Kubelet.SyncFrequency = duration(2 * time.Minute)
			c.Kubelet.SerializeImagePulls, c.Kubelet.ImageGCHighThresholdPercent = new(true), new(int32(90))
			c.Unsupported = []string{"readOnlyPort", "syncFrequency"}
		}},
		"PartOfAuthentication": {"what is left out of a struct has its default as well", kubelet + "authentication: {x509: {clientCAFile: /ca}}\nauthorization: {mode: AlwaysAllow}\n", func(c *Config) {
			c.Kubelet.Authentication.X509.ClientCAFile = "/ca"
			c.Kubelet.Authorization.Mode = "AlwaysAllow"
		}},
		"AsItIsAnyway": {"who asks for what happens anyway is not disappointed", kubelet + "serializeImagePulls: false\ncpuManagerPolicy: none\nport: 0\n", func(*Config) {}},
		"Gates": {"a value may be without an effect where its field is not", kubelet + "featureGates: {MemoryQoS: false, Other: true}\n", func(c *Config) {
			c.Kubelet.FeatureGates = map[string]bool{"MemoryQoS": false, "Other": true}
			c.Unsupported = []string{"featureGates[Other]"}
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want := Default()
			tc.change(&want)
			got, err := Parse([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, withoutLines()); diff != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
			if errs := got.Validate(); len(errs) > 0 {
				t.Errorf("problems: %v", errs)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	cases := map[string]struct {
		reason string
		text   string
		want   []string
	}{
		"UnknownField": {"a typo stops the start", kubelet + "maxPod: 1\n", []string{`unknown field "maxPod"`}},
		"Case":         {"names are case-sensitive", kubelet + "MaxPods: 1\n", []string{`unknown field "MaxPods"`}},
		"Nested":       {"the whole path is named", kubelet + "authentication: {x509: {ca: a}}\n", []string{`unknown field "authentication.x509.ca"`}},
		"All":          {"all of them at once, in both documents", kubelet + "a: 1\nb: 2\n---\n" + agent + "c: 3\n", []string{`"a"`, `"b"`, `line 8: c: unknown field "c"`}},
		"WrongType":    {"", kubelet + "maxPods: many\n", []string{"maxPods"}},
		"Duration":     {"", kubelet + "fileCheckFrequency: 20\n", []string{"line 3: fileCheckFrequency: "}},
		"Twice":        {"the line is the file's", agent + "---\n" + kubelet + "maxPods: 1\nmaxPods: 2\n", []string{"line 7", `"maxPods"`}},
		"TwoDocuments": {"", kubelet + "---\n" + kubelet, []string{"two documents of kind KubeletConfiguration"}},
		"OldVersion":   {"", "apiVersion: kubelet.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n", []string{"want KubeletConfiguration of kubelet.config.k8s.io/v1beta1"}},
		"OtherKind":    {"", "apiVersion: v1\nkind: Pod\n", []string{`unknown kind "Pod"`}},
		"Text":         {"", "hello\n", []string{"want documents with apiVersion and kind"}},
		"Broken":       {"", kubelet + "---\n" + agent + "a: [\n", []string{"line 6"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			if err == nil {
				t.Fatalf("%s: no error", tc.reason)
			}
			for _, want := range append(tc.want, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: got %q, want %q in it", tc.reason, err, want)
				}
			}
		})
	}
}

func TestValidateFollowsTheFile(t *testing.T) {
	c, err := Parse([]byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: -1\nclusterDomain: a_b\n" +
		"---\napiVersion: nodeagent.dev/v1alpha1\nkind: NodeAgentConfiguration\nruntime: docker\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, err := range c.Validate() {
		if e := (*FieldError)(nil); errors.As(err, &e) {
			got = append(got, e.Line)
		}
	}
	if d := cmp.Diff([]int{3, 4, 8}, got); d != "" {
		t.Errorf("one who mends a file goes from top to bottom (-want +got):\n%s", d)
	}
}

func TestValidate(t *testing.T) {
	cases := map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"NoPath":        {func(c *Config) { c.Kubelet.StaticPodPath = "" }, "staticPodPath: must be set"},
		"RelativePath":  {func(c *Config) { c.Kubelet.StaticPodPath = "manifests" }, `staticPodPath: "manifests" is not an absolute path`},
		"Frequency":     {func(c *Config) { c.Kubelet.FileCheckFrequency.Duration = time.Millisecond }, "fileCheckFrequency: 1ms is less than 1s; changes are seen at once in any case"},
		"DNS":           {func(c *Config) { c.Kubelet.ClusterDNS = []string{"10.0.0.10", "dns"} }, `clusterDNS[1]: "dns" is not an IP address`},
		"Domain":        {func(c *Config) { c.Kubelet.ClusterDomain = "a_b" }, `clusterDomain: "a_b": `},
		"ResolvConf":    {func(c *Config) { c.Kubelet.ResolverConfig = new("resolv.conf") }, "resolvConf: "},
		"Sysctl":        {func(c *Config) { c.Kubelet.AllowedUnsafeSysctls = []string{"net.core.*", "vm.swappiness"} }, `allowedUnsafeSysctls[1]: "vm.swappiness" has no namespace`},
		"SysctlPattern": {func(c *Config) { c.Kubelet.AllowedUnsafeSysctls = []string{"net.*.x"} }, "a * is only possible at the end"},
		"LogSize":       {func(c *Config) { c.Kubelet.ContainerLogMaxSize = "big" }, `containerLogMaxSize: "big" is not a size`},
		"LogFiles":      {func(c *Config) { c.Kubelet.ContainerLogMaxFiles = new(int32(1)) }, "containerLogMaxFiles: 1 is not between"},
		"RestartPeriod": {func(c *Config) {
			c.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod = new(duration(time.Hour))
			c.Agent.CrashLoopBackOff.Max = duration(time.Hour)
		}, "crashLoopBackOff.maxContainerRestartPeriod: 1h0m0s"},
		"Driver":          {func(c *Config) { c.Kubelet.CgroupDriver = "auto" }, `cgroupDriver: "auto" is not one of systemd, cgroupfs`},
		"CgroupRoot":      {func(c *Config) { c.Kubelet.CgroupRoot = "pods" }, "cgroupRoot: "},
		"CgroupsPerQOS":   {func(c *Config) { c.Kubelet.CgroupsPerQOS = new(false) }, "cgroupsPerQOS: false is not possible"},
		"Enforce":         {func(c *Config) { c.Kubelet.EnforceNodeAllocatable = []string{"all"} }, `enforceNodeAllocatable[0]: "all" is not one of`},
		"EnforceNone":     {func(c *Config) { c.Kubelet.EnforceNodeAllocatable = []string{"none", "pods"} }, "none excludes all others"},
		"EnforceSystem":   {func(c *Config) { c.Kubelet.EnforceNodeAllocatable = []string{"system-reserved"} }, "systemReservedCgroup: must be set"},
		"Reserved":        {func(c *Config) { c.Kubelet.SystemReserved = map[string]string{"gpu": "1"} }, `systemReserved: "gpu" is not one of`},
		"ReservedAmount":  {func(c *Config) { c.Kubelet.KubeReserved = map[string]string{"cpu": "-1"} }, `kubeReserved.cpu: "-1" is not a quantity`},
		"CPUs":            {func(c *Config) { c.Kubelet.ReservedSystemCPUs = "0-1,x" }, `reservedSystemCPUs: "0-1,x" is not a list of CPUs`},
		"CPUsBackwards":   {func(c *Config) { c.Kubelet.ReservedSystemCPUs = "3-1" }, "reservedSystemCPUs: "},
		"CPUsTooMany":     {func(c *Config) { c.Kubelet.ReservedSystemCPUs = "0-4000000000" }, "reservedSystemCPUs: "},
		"Swap":            {func(c *Config) { c.Kubelet.MemorySwap.SwapBehavior = "UnlimitedSwap" }, "memorySwap.swapBehavior: "},
		"Reservation":     {func(c *Config) { c.Kubelet.MemoryReservationPolicy = "Some" }, "memoryReservationPolicy: "},
		"Throttling":      {func(c *Config) { c.Kubelet.MemoryThrottlingFactor = new(1.5) }, "memoryThrottlingFactor: 1.5 is not above 0 and at most 1"},
		"Period":          {func(c *Config) { c.Kubelet.CPUCFSQuotaPeriod.Duration = time.Minute }, "cpuCFSQuotaPeriod: 1m0s"},
		"Pids":            {func(c *Config) { c.Kubelet.PodPidsLimit = new(int64(-2)) }, "podPidsLimit: -2"},
		"OOM":             {func(c *Config) { c.Kubelet.OOMScoreAdj = new(int32(2000)) }, "oomScoreAdj: 2000 is not between -1000 and 1000"},
		"MaxPods":         {func(c *Config) { c.Kubelet.MaxPods = -1 }, "maxPods: -1"},
		"Signal":          {func(c *Config) { c.Kubelet.EvictionHard = map[string]string{"memory.free": "1Gi"} }, `evictionHard: "memory.free" is not one of`},
		"Percentage":      {func(c *Config) { c.Kubelet.EvictionHard = map[string]string{"memory.available": "101%"} }, "evictionHard.memory.available: "},
		"NotANumber":      {func(c *Config) { c.Kubelet.EvictionHard = map[string]string{"memory.available": "NaN%"} }, "evictionHard.memory.available: "},
		"Threshold":       {func(c *Config) { c.Kubelet.EvictionHard = map[string]string{"memory.available": "much"} }, "is neither a quantity nor a percentage"},
		"SoftGrace":       {func(c *Config) { c.Kubelet.EvictionSoft = map[string]string{"memory.available": "1Gi"} }, "evictionSoftGracePeriod.memory.available: must be set"},
		"Shutdown":        {func(c *Config) { c.Kubelet.ShutdownGracePeriodCriticalPods = duration(time.Second) }, "shutdownGracePeriodCriticalPods: "},
		"ImageThresholds": {func(c *Config) { c.Kubelet.ImageGCLowThresholdPercent = new(int32(90)) }, "imageGCLowThresholdPercent: 90 is not less than imageGCHighThresholdPercent, 85"},
		"ImageAge":        {func(c *Config) { c.Kubelet.ImageMaximumGCAge = duration(time.Minute) }, "imageMaximumGCAge: 1m0s is not more than imageMinimumGCAge, 2m0s"},
		"Parallel":        {func(c *Config) { c.Kubelet.MaxParallelImagePulls = new(int32(0)) }, "maxParallelImagePulls: 0"},
		"ParallelSerial": {func(c *Config) {
			c.Kubelet.MaxParallelImagePulls, c.Kubelet.SerializeImagePulls = new(int32(2)), new(true)
		}, "has no meaning when serializeImagePulls is true"},
		"Runtime":        {func(c *Config) { c.Agent.Runtime = "docker" }, `runtime: "docker" is not one of auto, embedded, external`},
		"NodeName":       {func(c *Config) { c.Agent.NodeName = "My Node" }, `nodeName: "My Node": `},
		"Address":        {func(c *Config) { c.Agent.ContainerdAddress = "localhost:1" }, "containerdAddress: "},
		"StateDir":       {func(c *Config) { c.Agent.StateDir = "/" + strings.Repeat("a", 100) }, "stateDir: "},
		"RootDir":        {func(c *Config) { c.Agent.RootDir = "/a\nb" }, "rootDir: \"/a\\nb\" contains control characters"},
		"BinDirs":        {func(c *Config) { c.Agent.CNIBinDirs = []string{"bin"} }, "cniBinDirs[0]: "},
		"Namespace":      {func(c *Config) { c.Agent.ContainerdNamespace = "a/b" }, "containerdNamespace: "},
		"PodCIDR":        {func(c *Config) { c.Agent.PodCIDR = "10.88.0.0" }, "podCIDR: \"10.88.0.0\" is not a range"},
		"SmallCIDR":      {func(c *Config) { c.Agent.PodCIDR = "10.88.0.0/30" }, "has no room"},
		"BackOff":        {func(c *Config) { c.Agent.CrashLoopBackOff.Max = duration(time.Second) }, "crashLoopBackOff: initial 10s must be at least 0 and not above max 1s"},
		"LogDirs":        {func(c *Config) { c.Kubelet.PodLogsDir = "/other" }, "logDir: "},
		"RestartPeriods": {func(c *Config) { c.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod = new(duration(time.Minute)) }, "crashLoopBackOff.max: "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := Default()
			tc.spoil(&c)
			errs := c.Validate()
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), tc.want) {
				t.Errorf("got %v, want only %q", errs, tc.want)
			}
		})
	}
	c := Default()
	c.Kubelet.MaxPods, c.Agent.Runtime, c.Kubelet.StaticPodPath = -1, "x", ""
	if errs := c.Validate(); len(errs) != 3 {
		t.Errorf("got %v, want all three problems", errs)
	}
}

func TestProblemsNameFieldAndLine(t *testing.T) {
	cases := map[string]struct {
		reason, text string
		want         []string
	}{
		"Type":       {"the value is of another kind", kubelet + "maxPods: many\n", []string{"line 3: maxPods: want int32, not string"}},
		"Nested":     {"also deep inside", kubelet + "authentication:\n  anonymous:\n    enabled: maybe\n", []string{"line 5: authentication.anonymous.enabled: want bool, not string"}},
		"Duration":   {"types that decode themselves too", kubelet + "maxPods: 5\nfileCheckFrequency: soon\n", []string{"line 4: fileCheckFrequency: "}},
		"All":        {"one does not hide the other", kubelet + "maxPods: many\nmaxPodz: 5\n", []string{"line 3: maxPods: ", "line 4: maxPodz: "}},
		"SecondDoc":  {"lines count from the top of the file", kubelet + "---\n" + agent + "# comment\nruntimes: auto\n", []string{"line 7: runtimes: "}},
		"Value":      {"", kubelet + "clusterDNS:\n- 10.0.0.1\n- bogus\n", []string{`line 5: clusterDNS[1]: "bogus" is not an IP address`}},
		"ValueInMap": {"", kubelet + "evictionHard:\n  memory.available: much\n", []string{"line 4: evictionHard.memory.available: "}},
		"ValueOurs":  {"", agent + "runtime: podman\n---\n" + kubelet, []string{`line 3: runtime: "podman" is not one of`}},
		"Syntax":     {"not even YAML", kubelet + "a: [\n", []string{"line "}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := Load(file)
			if err != nil && !strings.Contains(err.Error(), file) {
				t.Errorf("the file is not named: %v", err)
			}
			text := fmt.Sprint(err, cfg.Validate())
			for _, want := range tc.want {
				if !strings.Contains(text, want) {
					t.Errorf("%s: problems are %s, want %q", tc.reason, text, want)
				}
			}
		})
	}
}
