package cri

import (
	"context"
	"encoding/json"
	"fmt"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// Resize says what a running container is to be limited to, and which resources
// of itself and of its pod that stands for.
type Resize struct {
	Linux *specs.LinuxResources
	Own   corev1.ResourceRequirements
	Pod   *corev1.ResourceRequirements
}

// ResizeContainer changes the limits of a running container in place. What it was
// told last is part of the container afterwards, for the next agent, too.
func (r *Runtime) ResizeContainer(ctx context.Context, id string, to Resize) error {
	p, c := r.find(id)
	if c == nil || r.get(c).State != Running {
		return fmt.Errorf("resize container %s: %w", id, ErrNotRunning)
	}
	limits, err := typeurl.MarshalAny(to.Linux)
	if err != nil {
		return fmt.Errorf("resize container %s: %w", id, err)
	}
	_, err = r.client.TaskService().Update(ctx, &tasksapi.UpdateTaskRequest{ContainerID: id, Resources: typeurl.MarshalProto(limits)})
	if err := errgrpc.ToNative(err); err != nil {
		return notRunning(fmt.Errorf("resize container %s: %w", id, err))
	}
	labels, err := resourceLabels(&to.Own, to.Pod)
	if err != nil {
		return err
	}
	var fields []string
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	if _, err := r.client.ContainerService().Update(ctx, containers.Container{ID: id, Labels: labels}, fields...); err != nil {
		return fmt.Errorf("record the new size of container %s: %w", id, err)
	}
	r.update(c, func(c *Container) { c.Resources, c.PodResources = *to.Own.DeepCopy(), to.Pod.DeepCopy() })
	r.wake(p.uid)
	return nil
}

// resourceLabels keep what a container was sized for.
func resourceLabels(own, pod *corev1.ResourceRequirements) (map[string]string, error) {
	ofContainer, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	ofPod, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	return map[string]string{labelResources: string(ofContainer), labelPodSize: string(ofPod)}, nil
}

// parseResources reads what resourceLabels wrote. An agent before this kept none
// for the pod.
func (c *Container) parseResources(labels map[string]string) error {
	for label, into := range map[string]any{labelResources: &c.Resources, labelPodSize: &c.PodResources} {
		if text := labels[label]; text != "" {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				return fmt.Errorf("container %s: label %s: %w", c.ID, label, err)
			}
		}
	}
	return nil
}
