package cri

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Labels of a container record. Those of the kubelet are for tools that read
// them; ours hold what must survive the agent. A label's key and value together
// are at most 4096 bytes.
const (
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodUID       = "io.kubernetes.pod.uid"
	labelName         = "io.kubernetes.container.name"
	labelAttempt      = "io.kubernetes.container.restartCount"
	labelKind         = "io.cri-containerd.kind"

	labelPrefix     = "nodeagent.dev/"
	labelSpecHash   = labelPrefix + "spec-hash"
	labelImageRef   = labelPrefix + "image-ref"
	labelImageID    = labelPrefix + "image-id"
	labelLogPath    = labelPrefix + "log-path"
	labelStopSignal = labelPrefix + "stop-signal"
	labelResources  = labelPrefix + "resources"
	labelPodSize    = labelPrefix + "pod-resources"
	labelBoot       = labelPrefix + "boot-id"
	labelIO         = labelPrefix + "io"
	labelTermLog    = labelPrefix + "termination-log"
	labelTermPolicy = labelPrefix + "termination-policy"
	labelStarted    = labelPrefix + "started-at"
	labelFinished   = labelPrefix + "finished-at"
	labelExitCode   = labelPrefix + "exit-code"
	labelReason     = labelPrefix + "reason"
	labelMessage    = labelPrefix + "message"
)

const (
	kindContainer = "container"
	kindInit      = "init" // the init process of a shared PID namespace
)

const maxLabel = 4096

// ioFlags is what must be known to open a container's streams again.
type ioFlags struct {
	TTY, Stdin, StdinOnce bool
}

func (f ioFlags) String() string { return fmt.Sprintf("%t,%t,%t", f.TTY, f.Stdin, f.StdinOnce) }

func parseIOFlags(s string) (f ioFlags) {
	// An unreadable value means no terminal and no stdin, which is always safe.
	_, _ = fmt.Sscanf(s, "%t,%t,%t", &f.TTY, &f.Stdin, &f.StdinOnce)
	return f
}

// containerLabels are the labels of a container that is being created.
func containerLabels(cfg *ContainerConfig, bootID, logPath, stopSignal string) (map[string]string, error) {
	labels, err := resourceLabels(&cfg.Container.Resources, cfg.Pod.Spec.Resources)
	if err != nil {
		return nil, err
	}
	maps.Copy(labels, podLabels(cfg.Pod))
	labels[labelKind] = kindContainer
	labels[labelName] = cfg.Container.Name
	labels[labelAttempt] = strconv.Itoa(cfg.Attempt)
	labels[labelSpecHash] = cfg.SpecHash
	labels[labelImageID] = cfg.Image.ID
	labels[labelImageRef] = imageRef(cfg.Image)
	labels[labelLogPath] = logPath
	labels[labelStopSignal] = stopSignal
	labels[labelBoot] = bootID
	labels[labelIO] = ioFlags{cfg.Container.TTY, cfg.Container.Stdin, cfg.Container.StdinOnce}.String()
	labels[labelTermLog] = cfg.TerminationLog
	labels[labelTermPolicy] = string(cfg.Container.TerminationMessagePolicy)
	for k, v := range labels {
		if len(k)+len(v) > maxLabel {
			return nil, fmt.Errorf("label %s of container %s is longer than %d bytes", k, cfg.Container.Name, maxLabel)
		}
	}
	return labels, nil
}

func podLabels(pod *corev1.Pod) map[string]string {
	return map[string]string{
		labelPodName: pod.Name, labelPodNamespace: pod.Namespace, labelPodUID: string(pod.UID),
	}
}

// imageRef is the reference by digest where there is one, as the kubelet shows it.
func imageRef(i Image) string {
	if len(i.RepoDigests) > 0 {
		return i.RepoDigests[0]
	}
	return i.ID
}

// exitLabels are the facts of an exit.
func exitLabels(c *Container) map[string]string {
	message := c.Message
	if limit := maxLabel - len(labelMessage); len(message) > limit {
		message = message[len(message)-limit:] // the end tells more
	}
	return map[string]string{
		labelStarted:  c.StartedAt.Format(time.RFC3339Nano),
		labelFinished: c.FinishedAt.Format(time.RFC3339Nano),
		labelExitCode: strconv.Itoa(int(c.ExitCode)),
		labelReason:   c.Reason,
		labelMessage:  message,
	}
}

// fromLabels reads a container back. A value that cannot be read is an error:
// nobody but us writes them.
func fromLabels(id, image string, labels map[string]string, created time.Time) (types.UID, *Container, error) {
	c := &Container{
		ID: id, Name: labels[labelName], Image: image, CreatedAt: created,
		SpecHash: labels[labelSpecHash], ImageID: labels[labelImageID], ImageRef: labels[labelImageRef],
		LogPath: labels[labelLogPath], StopSignal: labels[labelStopSignal], Reason: labels[labelReason], Message: labels[labelMessage],
	}
	uid := types.UID(labels[labelPodUID])
	if uid == "" {
		return "", nil, fmt.Errorf("container %s has no label %s", id, labelPodUID)
	}
	var err error
	if c.Attempt, err = strconv.Atoi(labels[labelAttempt]); err != nil {
		return "", nil, fmt.Errorf("container %s: label %s: %w", id, labelAttempt, err)
	}
	if err := c.parseResources(labels); err != nil {
		return "", nil, err
	}
	code, exited := labels[labelExitCode]
	if !exited {
		return uid, c, nil
	}
	n, err := strconv.ParseInt(code, 10, 32)
	if err != nil {
		return "", nil, fmt.Errorf("container %s: label %s: %w", id, labelExitCode, err)
	}
	c.State, c.ExitCode, c.Signal = Exited, int32(n), signalOf(int32(n))
	c.OOMKilled = c.Reason == reasonOOMKilled
	if c.StartedAt, err = time.Parse(time.RFC3339Nano, labels[labelStarted]); err != nil {
		return "", nil, fmt.Errorf("container %s: label %s: %w", id, labelStarted, err)
	}
	if c.FinishedAt, err = time.Parse(time.RFC3339Nano, labels[labelFinished]); err != nil {
		return "", nil, fmt.Errorf("container %s: label %s: %w", id, labelFinished, err)
	}
	return uid, c, nil
}

// signalOf is the signal that an exit code stands for, or 0.
func signalOf(code int32) int32 {
	if code > 128 && code <= 128+64 {
		return code - 128
	}
	return 0
}
