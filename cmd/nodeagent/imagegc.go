package main

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/gc"
)

// collectImages removes unused images until ctx ends.
func (a *agent) collectImages(ctx context.Context) error {
	policy := imagePolicy(a.cfg)
	if policy.Idle() {
		return nil
	}
	c := &gc.Collector{
		Policy: policy, Disk: a.imageDisk, Wanted: a.imagesWanted,
		Used: a.images.InUse, Images: a.imagesByID, Remove: a.images.Remove, Log: a.log,
		Event: func(reason, message string) { a.log.Warn("image garbage collection", "reason", reason, "err", message) },
	}
	return c.Run(ctx)
}

// imageDisk looks at the file system of the images. containerd is asked each time
// for where that is: it can be away now, and another one next time.
func (a *agent) imageDisk(ctx context.Context) (gc.Disk, error) {
	dir, err := a.images.Dir(ctx)
	if err != nil {
		return gc.Disk{}, err
	}
	return gc.DiskOf(dir)
}

// imagePolicy reads the image part of the configuration.
func imagePolicy(cfg config.Config) gc.Policy {
	k := cfg.Kubelet
	return gc.Policy{
		High: int(ptr.Deref(k.ImageGCHighThresholdPercent, 85)), Low: int(ptr.Deref(k.ImageGCLowThresholdPercent, 80)),
		MinAge: k.ImageMinimumGCAge.Duration, MaxAge: k.ImageMaximumGCAge.Duration,
	}
}

// parallelPulls is how many images may be pulled at once, 0 is any number.
func parallelPulls(cfg config.Config) int {
	if ptr.Deref(cfg.Kubelet.SerializeImagePulls, false) {
		return 1
	}
	return int(ptr.Deref(cfg.Kubelet.MaxParallelImagePulls, 0))
}

// imagesWanted are the images of every pod that is to run and of every container
// that is there; unknown until all sources have reported.
func (a *agent) imagesWanted() (keys []string, ok bool) {
	for _, p := range a.desired.Pods() {
		eachImage(p, func(_, image string) { keys = append(keys, cri.NormalName(image)) })
	}
	for _, p := range a.runtime.Pods() {
		for i := range p.Containers {
			keys = append(keys, p.Containers[i].Image, p.Containers[i].ImageID)
		}
	}
	return keys, a.desired.Synced()
}

func eachImage(p *corev1.Pod, f func(container, image string)) {
	for i := range p.Spec.InitContainers {
		f(p.Spec.InitContainers[i].Name, p.Spec.InitContainers[i].Image)
	}
	for i := range p.Spec.Containers {
		f(p.Spec.Containers[i].Name, p.Spec.Containers[i].Image)
	}
}

// imagesByID gathers the names that each image has.
func (a *agent) imagesByID(ctx context.Context) ([]gc.Image, error) {
	list, err := a.images.List(ctx)
	if err != nil {
		return nil, err
	}
	return groupImages(list, a.images.InImageDir), nil
}

// groupImages makes one image of those that differ in their name alone. What
// holds one name holds them all: no name may be lost that a pod may ask for.
func groupImages(list []cri.Image, inImageDir func(*cri.Image) bool) []gc.Image {
	var out []gc.Image
	for i := range list {
		image := &list[i]
		at := slices.IndexFunc(out, func(g gc.Image) bool { return g.ID == image.ID })
		if at < 0 {
			at = len(out)
			out = append(out, gc.Image{ID: image.ID, Size: image.Size})
		}
		g := &out[at]
		g.Names = append(g.Names, image.Name)
		g.Keep = g.Keep || image.Pinned || inImageDir(image)
		if image.CreatedAt.After(g.Created) {
			g.Created = image.CreatedAt
		}
	}
	return out
}
