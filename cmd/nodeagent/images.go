package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// imageView is one image as the client is told of it.
type imageView struct {
	Name        string   `json:"name"`
	ID          string   `json:"id"`
	RepoTags    []string `json:"repoTags,omitempty"`
	RepoDigests []string `json:"repoDigests,omitempty"`
	Size        int64    `json:"size"`
	Pinned      bool     `json:"pinned,omitempty"`
	Archive     string   `json:"archive,omitempty"`
	// UsedBy are the pods with a container of this image, as namespace/name.
	UsedBy []string `json:"usedBy,omitempty"`
}

func newImagesCommand(f *clientFlags) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "images",
		Short: "Show the images of this machine",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var list []imageView
			if err := newClient(f.socket).get(c.Context(), &list, "nodeagent/v1/images"); err != nil {
				return err
			}
			if output != "" && output != "wide" {
				return printObject(c.OutOrStdout(), output, list)
			}
			return printImages(c.OutOrStdout(), list, output == "wide")
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "wide, json, yaml or jsonpath=TEMPLATE")
	return c
}

func printImages(out io.Writer, list []imageView, wide bool) error {
	t := &table{header: []string{"IMAGE", "TAG", "IMAGE ID", "SIZE", "USED BY"}}
	for i := range list {
		image := &list[i]
		name, tag := splitName(image.Name)
		id := strings.TrimPrefix(image.ID, "sha256:")
		if !wide {
			id = id[:min(len(id), 12)]
		}
		t.add([]string{name, tag, id, bytesText(uint64(image.Size)), usedBy(image.UsedBy, wide)})
	}
	return t.print(out, true)
}

// splitName parts repository and tag; an image that is known by its digest has
// no tag.
func splitName(name string) (repository, tag string) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name, "<none>"
	}
	if tagged, ok := named.(reference.NamedTagged); ok {
		return named.Name(), tagged.Tag()
	}
	return named.Name(), "<none>"
}

// usedBy shows as many pods as fit in a column.
func usedBy(pods []string, wide bool) string {
	const most = 3
	if len(pods) == 0 {
		return "<none>"
	}
	if !wide && len(pods) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(pods[:most], ","), len(pods)-most)
	}
	return strings.Join(pods, ",")
}

// imageViews answers the client.
func (a *agent) imageViews(ctx context.Context) ([]imageView, error) {
	list, err := a.images.List(ctx)
	if err != nil {
		return nil, err
	}
	return viewImages(list, a.runtime.Pods()), nil
}

// viewImages says of each image who uses it. A container may run on what its
// image's name stood for earlier: the ID decides.
func viewImages(list []cri.Image, pods []cri.Pod) []imageView {
	out := make([]imageView, 0, len(list))
	for i := range list {
		image := &list[i]
		v := imageView{
			Name: image.Name, ID: image.ID, RepoTags: image.RepoTags, RepoDigests: image.RepoDigests,
			Size: image.Size, Pinned: image.Pinned, Archive: image.Archive,
		}
		for _, p := range pods {
			if slices.ContainsFunc(p.Containers, func(c cri.Container) bool { return c.ImageID == image.ID }) {
				v.UsedBy = append(v.UsedBy, p.Namespace+"/"+p.Name)
			}
		}
		slices.Sort(v.UsedBy)
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b imageView) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
