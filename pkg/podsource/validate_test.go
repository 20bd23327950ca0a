package podsource

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// section is a pod with parts of its spec replaced, in flow style.
func section(spec, container string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {%s containers: [{name: c, image: i, %s}]}
`, spec, container)
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("a", 2050)
	cases := map[string]struct {
		reason          string
		spec, container string
		want            []string // fields with problems
	}{
		"Minimal": {"nothing is wrong with it", "", "", nil},
		"Rich": {"nor with one that uses much",
			`volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1Gi}}, {name: h, emptyDir: {medium: HugePages-2Mi}}, {name: p, projected: {sources: [{secret: {name: s}}, {configMap: {name: s, items: [{key: a, path: a/b}]}}]}}],
			 securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: "1"}, {name: kernel/shmmax, value: "1"}], seccompProfile: {type: Localhost, localhostProfile: a/b.json}, fsGroup: 7, supplementalGroups: [1, 2]},
			 initContainers: [{name: side, image: i, restartPolicy: Always, startupProbe: {tcpSocket: {port: http}}, ports: [{name: http, containerPort: 80, hostPort: 80}]}, {name: first, image: i, ports: [{containerPort: 80, hostPort: 80}]}],
			 os: {name: linux}, hostAliases: [{ip: "::1", hostnames: [a.b]}], dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1], searches: [a.b., ., _x.y]},
			 tolerations: [{operator: Exists}, {key: a/b, value: c, effect: NoSchedule}], imagePullSecrets: [{name: s}],`,
			`env: [{name: A.b-c, value: "x\ny"}, {name: B, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}, {name: C, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['Ex.org/A']"}}}],
			 envFrom: [{prefix: A_, secretRef: {name: s}}], volumeMounts: [{name: v, mountPath: /v, subPath: a/..b}, {name: v, mountPath: /w, readOnly: true, recursiveReadOnly: IfPossible}],
			 resources: {limits: {cpu: 1, hugepages-2Mi: 4Mi, ex.org/gpu: 1}}, lifecycle: {preStop: {sleep: {seconds: 30}}, stopSignal: SIGUSR1},
			 restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}],
			 livenessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 1}`, nil},

		"RestartPolicy":     {"", "restartPolicy: Sometimes,", "", []string{"spec.restartPolicy"}},
		"Grace":             {"", "terminationGracePeriodSeconds: 99999999999,", "", []string{"spec.terminationGracePeriodSeconds"}},
		"Deadline":          {"", "activeDeadlineSeconds: 0,", "", []string{"spec.activeDeadlineSeconds"}},
		"OS":                {"", "os: {name: plan9},", "", []string{"spec.os.name"}},
		"Ephemeral":         {"", "ephemeralContainers: [{name: e, image: i}],", "", []string{"spec.ephemeralContainers"}},
		"SchedulingGates":   {"", "schedulingGates: [{name: a}],", "", []string{"spec.schedulingGates"}},
		"Toleration":        {"", "tolerations: [{operator: Exists, value: x}, {operator: Equal}, {operator: Exists, effect: Now}, {operator: Exists, tolerationSeconds: 1}],", "", []string{"spec.tolerations[0].value", "spec.tolerations[1].operator", "spec.tolerations[2].effect", "spec.tolerations[3].effect"}},
		"PreemptionPolicy":  {"", "preemptionPolicy: Maybe,", "", []string{"spec.preemptionPolicy"}},
		"PriorityClass":     {"", "priorityClassName: A_B,", "", []string{"spec.priorityClassName"}},
		"PullSecret":        {"", "imagePullSecrets: [{}],", "", []string{"spec.imagePullSecrets[0].name"}},
		"NodeSelector":      {"", "nodeSelector: {a b: c},", "", []string{"spec.nodeSelector"}},
		"Overhead":          {"", "overhead: {cpu: -1},", "", []string{"spec.overhead[cpu]"}},
		"ContainerName":     {"", "initContainers: [{name: A, image: i}],", "", []string{"spec.initContainers[0].name"}},
		"NameOverBothKinds": {"", "initContainers: [{name: c, image: i}],", "", []string{"spec.containers[0].name"}},
		"Image":             {"", "initContainers: [{name: a, image: ' i'}, {name: b, image: \"i\\nj\"}, {name: d}],", "", []string{"spec.initContainers[0].image", "spec.initContainers[1].image", "spec.initContainers[2].image"}},
		"PullPolicy":        {"", "", "imagePullPolicy: Often", []string{"spec.containers[0].imagePullPolicy"}},
		"TerminationPath":   {"", "", "terminationMessagePath: ../x, terminationMessagePolicy: Some", []string{"spec.containers[0].terminationMessagePolicy", "spec.containers[0].terminationMessagePath", "spec.containers[0].terminationMessagePath"}},
		"NUL":               {"no argument can have one", "", `command: ["a\0"], args: ["b\0"], env: [{name: A, value: "c\0"}]`, []string{"spec.containers[0].command[0]", "spec.containers[0].args[0]", "spec.containers[0].env[0].value"}},
		"WorkingDir":        {"", "", `workingDir: "/a\nb"`, []string{"spec.containers[0].workingDir"}},
		"ResizePolicy":      {"", "", "resizePolicy: [{resourceName: disk, restartPolicy: Maybe}]", []string{"spec.containers[0].resizePolicy[0].resourceName", "spec.containers[0].resizePolicy[0].restartPolicy"}},

		"Ports":         {"", "", "ports: [{containerPort: 70000}, {containerPort: 1, protocol: XTP}, {containerPort: 1, hostIP: x}, {name: a, containerPort: 1}, {name: a, containerPort: 2}, {name: a--b, containerPort: 3}, {containerPort: 1, hostPort: -1}]", []string{"spec.containers[0].ports[0].containerPort", "spec.containers[0].ports[1].protocol", "spec.containers[0].ports[2].hostIP", "spec.containers[0].ports[4].name", "spec.containers[0].ports[5].name", "spec.containers[0].ports[6].hostPort"}},
		"HostPortTwice": {"", "initContainers: [{name: s, image: i, restartPolicy: Always, ports: [{containerPort: 1, hostPort: 80}]}],", "ports: [{containerPort: 2, hostPort: 80}, {containerPort: 2, hostPort: 80, protocol: UDP}]", []string{"spec.containers[0].ports[0].hostPort"}},
		"HostNetwork":   {"", "hostNetwork: true,", "ports: [{containerPort: 1, hostPort: 2}]", []string{"spec.containers[0].ports[0].hostPort"}},

		"EnvName":       {"", "", "env: [{name: a=b}, {value: x}]", []string{"spec.containers[0].env[0].name", "spec.containers[0].env[1].name"}},
		"EnvBoth":       {"", "", "env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", []string{"spec.containers[0].env[0].valueFrom"}},
		"EnvSources":    {"", "", "env: [{name: A, valueFrom: {}}, {name: B, valueFrom: {fieldRef: {fieldPath: metadata.name}, secretKeyRef: {name: s, key: k}}}]", []string{"spec.containers[0].env[0].valueFrom", "spec.containers[0].env[1].valueFrom"}},
		"FieldRef":      {"", "", "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.containers}}}, {name: B, valueFrom: {fieldRef: {apiVersion: v2, fieldPath: ''}}}, {name: C, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['a b']\"}}}]", []string{"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath", "spec.containers[0].env[1].valueFrom.fieldRef.apiVersion", "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath", "spec.containers[0].env[2].valueFrom.fieldRef.fieldPath"}},
		"ResourceField": {"", "", "env: [{name: A, valueFrom: {resourceFieldRef: {resource: cpu}}}, {name: B, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Ki}}}, {name: C, valueFrom: {resourceFieldRef: {containerName: x, resource: limits.memory}}}]", []string{"spec.containers[0].env[0].valueFrom.resourceFieldRef.resource", "spec.containers[0].env[1].valueFrom.resourceFieldRef.divisor", "spec.containers[0].env[2].valueFrom.resourceFieldRef.containerName"}},
		"KeyRefs":       {"", "", "env: [{name: A, valueFrom: {secretKeyRef: {name: A_B, key: k}}}, {name: B, valueFrom: {configMapKeyRef: {name: a, key: a/b}}}]", []string{"spec.containers[0].env[0].valueFrom.secretKeyRef.name", "spec.containers[0].env[1].valueFrom.configMapKeyRef.key"}},
		"FileKeyRef":    {"", "volumes: [{name: s, secret: {secretName: s}}],", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: s, path: ../a, key: K}}}, {name: B, valueFrom: {fileKeyRef: {volumeName: x, path: a, key: K}}}]", []string{"spec.containers[0].env[0].valueFrom.fileKeyRef.path", "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName", "spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName"}},
		"EnvFrom":       {"", "", "envFrom: [{}, {secretRef: {name: a}, configMapRef: {name: a}}, {secretRef: {}}, {prefix: a=, secretRef: {name: a}}]", []string{"spec.containers[0].envFrom[0]", "spec.containers[0].envFrom[1]", "spec.containers[0].envFrom[2].secretRef.name", "spec.containers[0].envFrom[3].prefix"}},

		"MountOfNothing":    {"", "", "volumeMounts: [{name: v, mountPath: /v}]", []string{"spec.containers[0].volumeMounts[0].name"}},
		"MountPaths":        {"", "volumes: [{name: v}],", `volumeMounts: [{name: v, mountPath: v}, {name: v, mountPath: /a/../b}, {name: v, mountPath: "/a\nb"}, {name: v}, {name: v, mountPath: /c}, {name: v, mountPath: /c}]`, []string{"spec.containers[0].volumeMounts[0].mountPath", "spec.containers[0].volumeMounts[1].mountPath", "spec.containers[0].volumeMounts[2].mountPath", "spec.containers[0].volumeMounts[3].mountPath", "spec.containers[0].volumeMounts[5].mountPath"}},
		"SubPaths":          {"", "volumes: [{name: v}],", "volumeMounts: [{name: v, mountPath: /a, subPath: /x}, {name: v, mountPath: /b, subPath: a/../../b}, {name: v, mountPath: /c, subPath: a, subPathExpr: b}]", []string{"spec.containers[0].volumeMounts[0].subPath", "spec.containers[0].volumeMounts[1].subPath", "spec.containers[0].volumeMounts[2].subPathExpr"}},
		"Propagation":       {"", "volumes: [{name: v}],", "volumeMounts: [{name: v, mountPath: /a, mountPropagation: Bidirectional}, {name: v, mountPath: /b, mountPropagation: Up}]", []string{"spec.containers[0].volumeMounts[0].mountPropagation", "spec.containers[0].volumeMounts[1].mountPropagation"}},
		"RecursiveReadOnly": {"", "volumes: [{name: v}],", "volumeMounts: [{name: v, mountPath: /a, recursiveReadOnly: Enabled}, {name: v, mountPath: /b, readOnly: true, recursiveReadOnly: Enabled, mountPropagation: HostToContainer}]", []string{"spec.containers[0].volumeMounts[0].recursiveReadOnly", "spec.containers[0].volumeMounts[1].recursiveReadOnly"}},
		"MountOptions":      {"", "volumes: [{name: v}, {name: i, image: {reference: x}}],", "volumeMounts: [{name: v, mountPath: /a, bindMountOptions: [suid]}, {name: i, mountPath: /b, bindMountOptions: [noexec]}]", []string{"spec.containers[0].volumeMounts[0].bindMountOptions[0]", "spec.containers[0].volumeMounts[1].bindMountOptions"}},
		"Devices":           {"", "volumes: [{name: v}],", "volumeDevices: [{name: v, devicePath: /dev/x}]", []string{"spec.containers[0].volumeDevices"}},

		"InitProbes":      {"", "initContainers: [{name: a, image: i, livenessProbe: {exec: {command: [x]}}, lifecycle: {preStop: {exec: {command: [x]}}}}],", "", []string{"spec.initContainers[0].livenessProbe", "spec.initContainers[0].lifecycle"}},
		"ProbeHandlers":   {"", "", "livenessProbe: {}, readinessProbe: {exec: {command: []}, tcpSocket: {port: 1}}, startupProbe: {grpc: {port: 0}}", []string{"spec.containers[0].livenessProbe", "spec.containers[0].readinessProbe", "spec.containers[0].readinessProbe.exec.command", "spec.containers[0].startupProbe.grpc.port"}},
		"ProbeNumbers":    {"", "", "livenessProbe: {tcpSocket: {port: 1}, periodSeconds: -1, successThreshold: 2, terminationGracePeriodSeconds: 0}, readinessProbe: {tcpSocket: {port: 70000}, successThreshold: 2, terminationGracePeriodSeconds: 1}", []string{"spec.containers[0].livenessProbe.periodSeconds", "spec.containers[0].livenessProbe.successThreshold", "spec.containers[0].livenessProbe.terminationGracePeriodSeconds", "spec.containers[0].readinessProbe.tcpSocket.port", "spec.containers[0].readinessProbe.terminationGracePeriodSeconds"}},
		"ProbeHTTP":       {"", "", `livenessProbe: {httpGet: {port: a--b, scheme: FTP, path: "/\r\n", httpHeaders: [{name: "a b", value: "c\nd"}]}}`, []string{"spec.containers[0].livenessProbe.httpGet.port", "spec.containers[0].livenessProbe.httpGet.path", "spec.containers[0].livenessProbe.httpGet.scheme", "spec.containers[0].livenessProbe.httpGet.httpHeaders[0].name", "spec.containers[0].livenessProbe.httpGet.httpHeaders[0].value"}},
		"Hooks":           {"", "", "lifecycle: {postStart: {}, preStop: {sleep: {seconds: 31}}}", []string{"spec.containers[0].lifecycle.postStart", "spec.containers[0].lifecycle.preStop.sleep.seconds"}},
		"StopSignalNoOS":  {"", "", "lifecycle: {stopSignal: SIGTERM}", []string{"spec.containers[0].lifecycle.stopSignal"}},
		"StopSignal":      {"", "os: {name: linux},", "lifecycle: {stopSignal: SIGNOPE}", []string{"spec.containers[0].lifecycle.stopSignal"}},
		"ContainerPolicy": {"", "", "restartPolicy: Maybe", []string{"spec.containers[0].restartPolicy"}},
		"RulesAlone":      {"", "", "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]", []string{"spec.containers[0].restartPolicy"}},
		"Rules":           {"", "", "restartPolicy: Never, restartPolicyRules: [{action: Stop, exitCodes: {operator: Is, values: [1, 1, 256]}}, {action: Restart}, {action: Restart, exitCodes: {operator: In}}]", []string{"spec.containers[0].restartPolicyRules[0].action", "spec.containers[0].restartPolicyRules[0].exitCodes.operator", "spec.containers[0].restartPolicyRules[0].exitCodes.values[1]", "spec.containers[0].restartPolicyRules[0].exitCodes.values[2]", "spec.containers[0].restartPolicyRules[1].exitCodes", "spec.containers[0].restartPolicyRules[2].exitCodes.values"}},
		"SidecarRules":    {"", "initContainers: [{name: a, image: i, restartPolicy: Always, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]}],", "", []string{"spec.initContainers[0].restartPolicyRules"}},

		"Volumes":      {"", "volumes: [{name: A_B}, {name: a}, {name: a}, {}, {name: b, emptyDir: {}, hostPath: {path: /x}}],", "", []string{"spec.volumes[0].name", "spec.volumes[2].name", "spec.volumes[3].name", "spec.volumes[4]"}},
		"HostPath":     {"", "volumes: [{name: a, hostPath: {path: x}}, {name: b, hostPath: {path: /a/../b}}, {name: d, hostPath: {path: /a, type: Dir}}, {name: e, hostPath: {}}],", "", []string{"spec.volumes[0].hostPath.path", "spec.volumes[1].hostPath.path", "spec.volumes[2].hostPath.type", "spec.volumes[3].hostPath.path"}},
		"EmptyDir":     {"", "volumes: [{name: a, emptyDir: {medium: Disk}}, {name: b, emptyDir: {sizeLimit: -1}}, {name: d, emptyDir: {medium: HugePages-x}}, {name: e, emptyDir: {mode: 02000}}],", "", []string{"spec.volumes[0].emptyDir.medium", "spec.volumes[1].emptyDir.sizeLimit", "spec.volumes[2].emptyDir.medium", "spec.volumes[3].emptyDir.mode"}},
		"Files":        {"", "volumes: [{name: a, configMap: {name: x, defaultMode: 01000, items: [{key: a/b, path: /a}, {key: a, path: ..a, mode: -1}, {}]}}, {name: b, secret: {}}],", "", []string{"spec.volumes[0].configMap.defaultMode", "spec.volumes[0].configMap.items[0].key", "spec.volumes[0].configMap.items[0].path", "spec.volumes[0].configMap.items[1].path", "spec.volumes[0].configMap.items[1].mode", "spec.volumes[0].configMap.items[2].key", "spec.volumes[0].configMap.items[2].path", "spec.volumes[1].secret.secretName"}},
		"DownwardAPI":  {"", "volumes: [{name: a, downwardAPI: {items: [{path: a}, {path: b, fieldRef: {fieldPath: status.podIP}}, {path: d, resourceFieldRef: {resource: limits.cpu}}]}}],", "", []string{"spec.volumes[0].downwardAPI.items[0]", "spec.volumes[0].downwardAPI.items[1].fieldRef.fieldPath", "spec.volumes[0].downwardAPI.items[2].resourceFieldRef.containerName"}},
		"Projected":    {"", "volumes: [{name: a, projected: {sources: [{}, {secret: {name: s}, configMap: {name: s}}, {secret: {name: s, items: [{key: a, path: p}]}}, {configMap: {name: s, items: [{key: a, path: p}]}}]}}],", "", []string{"spec.volumes[0].projected.sources[0]", "spec.volumes[0].projected.sources[1]", "spec.volumes[0].projected.sources[3].configMap.items[0].path"}},
		"OtherVolumes": {"", "volumes: [{name: a, gitRepo: {repository: x}}, {name: b, image: {}}, {name: d, nfs: {path: x}}],", "", []string{"spec.volumes[0].gitRepo", "spec.volumes[1].image.reference", "spec.volumes[2].nfs.server", "spec.volumes[2].nfs.path"}},
		"APIReferences": {"one for each thing that only an API server has",
			"serviceAccount: a, runtimeClassName: r, resourceClaims: [{name: a}], volumes: [{name: a, persistentVolumeClaim: {claimName: a}}, {name: b, csi: {driver: d}}, {name: d, ephemeral: {}}, {name: e, projected: {sources: [{serviceAccountToken: {path: t}}, {clusterTrustBundle: {path: t}}, {podCertificate: {}}]}}, {name: f, azureFile: {secretName: s, shareName: s}}, {name: g, glusterfs: {endpoints: e, path: p}}],",
			"resources: {claims: [{name: a}]}",
			[]string{"spec.serviceAccountName", "spec.runtimeClassName", "spec.resourceClaims", "spec.containers[0].resources.claims", "spec.volumes[0].persistentVolumeClaim", "spec.volumes[1].csi", "spec.volumes[2].ephemeral", "spec.volumes[3].projected.sources[0].serviceAccountToken", "spec.volumes[3].projected.sources[1].clusterTrustBundle", "spec.volumes[3].projected.sources[2].podCertificate", "spec.volumes[4].azureFile", "spec.volumes[5].glusterfs"}},

		"Resources":     {"", "", "resources: {limits: {cpu: -1, disk: 1, ex.org/gpu: 500m}, requests: {memory: 1Mi, ex.org/fpga: 1}}", []string{"spec.containers[0].resources.limits[cpu]", "spec.containers[0].resources.limits[disk]", "spec.containers[0].resources.limits[ex.org/gpu]", "spec.containers[0].resources.requests[cpu]", "spec.containers[0].resources.requests[disk]", "spec.containers[0].resources.requests[ex.org/gpu]", "spec.containers[0].resources.limits[ex.org/fpga]"}},
		"HugePages":     {"", "", "resources: {limits: {hugepages-2Mi: 3Mi}}", []string{"spec.containers[0].resources.limits[hugepages-2Mi]", "spec.containers[0].resources.requests[hugepages-2Mi]", "spec.containers[0].resources"}},
		"PodResources":  {"", "resources: {limits: {cpu: 1, ex.org/gpu: 1}, requests: {cpu: 100m}},", "resources: {limits: {cpu: 2}}", []string{"spec.containers[0].resources.limits[cpu]", "spec.resources.limits[ex.org/gpu]", "spec.resources.requests[cpu]"}},
		"PodOverLimits": {"", "resources: {limits: {cpu: 1}, requests: {cpu: 2}},", "", []string{"spec.resources.requests[cpu]"}},

		"Users":       {"", "securityContext: {runAsUser: -1, runAsGroup: -1, fsGroup: -1, supplementalGroups: [-1]},", "securityContext: {runAsUser: 9999999999}", []string{"spec.containers[0].securityContext.runAsUser", "spec.securityContext.runAsUser", "spec.securityContext.runAsGroup", "spec.securityContext.fsGroup", "spec.securityContext.supplementalGroups[0]"}},
		"Policies":    {"", "securityContext: {supplementalGroupsPolicy: X, fsGroupChangePolicy: X, seLinuxChangePolicy: X},", "securityContext: {procMount: X}", []string{"spec.containers[0].securityContext.procMount", "spec.securityContext.supplementalGroupsPolicy", "spec.securityContext.fsGroupChangePolicy", "spec.securityContext.seLinuxChangePolicy"}},
		"Profiles":    {"", "securityContext: {seccompProfile: {type: Localhost}, appArmorProfile: {type: X}},", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: ../x}, appArmorProfile: {type: RuntimeDefault, localhostProfile: x}}", []string{"spec.containers[0].securityContext.seccompProfile.localhostProfile", "spec.containers[0].securityContext.appArmorProfile.localhostProfile", "spec.securityContext.seccompProfile.localhostProfile", "spec.securityContext.appArmorProfile.type"}},
		"ProcMount":   {"", "", "securityContext: {procMount: Unmasked}", []string{"spec.containers[0].securityContext.procMount"}},
		"ProcMountOK": {"", "hostUsers: false,", "securityContext: {procMount: Unmasked}", nil},
		"Escalation":  {"", "", "securityContext: {privileged: true, allowPrivilegeEscalation: false, capabilities: {add: [CAP_SYS_ADMIN]}}", []string{"spec.containers[0].securityContext.allowPrivilegeEscalation", "spec.containers[0].securityContext.allowPrivilegeEscalation"}},
		"Sysctls":     {"", "securityContext: {sysctls: [{name: net/ipv4/x, value: '1'}, {name: net.ipv4.x, value: '1'}, {name: ../x, value: '1'}, {value: '1'}, {name: a, value: \"1\\n2\"}]},", "", []string{"spec.securityContext.sysctls[1].name", "spec.securityContext.sysctls[2].name", "spec.securityContext.sysctls[3].name", "spec.securityContext.sysctls[4].value"}},
		"HostSysctls": {"", "hostNetwork: true, hostIPC: true, securityContext: {sysctls: [{name: net.core.x, value: '1'}, {name: kernel.sem, value: '1'}]},", "", []string{"spec.securityContext.sysctls[0].name", "spec.securityContext.sysctls[1].name"}},
		"SharedPID":   {"", "shareProcessNamespace: true, hostPID: true,", "", []string{"spec.shareProcessNamespace"}},
		"UserNS":      {"", "hostUsers: false, hostNetwork: true, hostPID: true, hostIPC: true,", "", []string{"spec.hostIPC", "spec.hostNetwork", "spec.hostPID"}},
		"DNSPolicy":   {"", "dnsPolicy: Some,", "", []string{"spec.dnsPolicy"}},
		"DNSNone":     {"", "dnsPolicy: None,", "", []string{"spec.dnsConfig.nameservers"}},
		"DNSConfig":   {"", "dnsConfig: {nameservers: [a, 1.1.1.1, 1.1.1.1, 1.1.1.1], searches: ['a b', " + long + "], options: [{}]},", "", []string{"spec.dnsConfig.nameservers", "spec.dnsConfig.nameservers[0]", "spec.dnsConfig.searches", "spec.dnsConfig.searches[0]", "spec.dnsConfig.searches[1]", "spec.dnsConfig.options[0].name"}},
		"Hostnames":   {"", "hostname: A_B, subdomain: a.b, hostAliases: [{ip: x, hostnames: [A]}],", "", []string{"spec.hostname", "spec.subdomain", "spec.hostAliases[0].ip", "spec.hostAliases[0].hostnames[0]"}},
		"Override":    {"", "hostnameOverride: " + long[:70] + ", setHostnameAsFQDN: true, hostNetwork: true,", "", []string{"spec.hostnameOverride", "spec.hostnameOverride", "spec.hostnameOverride"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, problems := ParseFile("f", []byte(section(tc.spec, tc.container)), "n")
			var got []string
			for _, p := range problems {
				at, _, _ := strings.Cut(p.Err.Error(), ": ")
				got = append(got, at)
			}
			less := cmp.Transformer("sort", func(in []string) map[string]int {
				out := map[string]int{}
				for _, s := range in {
					out[s]++
				}
				return out
			})
			if diff := cmp.Diff(tc.want, got, less); diff != "" {
				t.Errorf("%s: -want +got:\n%s\n%v", tc.reason, diff, problems)
			}
		})
	}
}

func TestNoContainers(t *testing.T) {
	_, problems := ParseFile("f", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n"), "n")
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "spec.containers: Required value") {
		t.Errorf("got %v", problems)
	}
}
