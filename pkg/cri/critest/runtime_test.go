package critest_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/cri/critest"
)

func TestRuntimeInMemory(t *testing.T) {
	critest.Test(t, func(_ *testing.T, wake func(types.UID)) critest.Machine {
		r := critest.New()
		r.Wake = wake
		return critest.Machine{Runtime: r, Image: cri.Image{Name: "docker.io/demo/busybox:1"}, Cgroup: "/none"}
	})
}
