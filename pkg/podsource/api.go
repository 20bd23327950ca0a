package podsource

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
)

// SourceAPI names the API server as a source of pods.
const SourceAPI = "api"

// retryLongest is about how long an API server that was away may be back until
// its pods are looked at again.
const retryLongest = 10 * time.Second

// API reports the pods that an API server binds to this node, and the mirror pods
// of its static pods apart from them. It hands over nothing until the server has
// answered once, and goes on with what it knows while the server is away.
type API struct {
	Client   corev1client.PodsGetter
	NodeName string
	// Emit takes the full lists, oldest pod first. They must not be changed.
	Emit func(pods, mirrors []*corev1.Pod)
}

// Run reports until ctx ends.
func (a *API) Run(ctx context.Context) error {
	pods := a.Client.Pods(metav1.NamespaceAll)
	mine := fields.OneTermEqualSelector("spec.nodeName", a.NodeName).String()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = mine
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = mine
			return pods.Watch(ctx, o)
		},
	}
	r := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(source, a.Client), &corev1.Pod{},
		&boundPods{emit: a.emit, pods: map[string]*corev1.Pod{}}, cache.ReflectorOptions{
			Name:    "pods",
			Backoff: &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 10, Cap: retryLongest},
		})
	r.RunWithContext(ctx)
	return nil
}

func (a *API) emit(all []*corev1.Pod) {
	var pods, mirrors []*corev1.Pod
	for _, pod := range all {
		if IsMirror(pod) {
			mirrors = append(mirrors, pod)
		} else {
			pods = append(pods, pod)
		}
	}
	a.Emit(pods, mirrors)
}

// IsMirror says whether a pod of an API server only shows a static pod.
func IsMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[AnnotationMirror]
	return mirror
}

// boundPods is where the reflector keeps the pods, by namespace and name. Each
// change hands over all of them. Only the reflector's own goroutine uses it.
type boundPods struct {
	emit func([]*corev1.Pod)
	pods map[string]*corev1.Pod
}

func (b *boundPods) Add(obj any) error { return b.put(obj) }

func (b *boundPods) Update(obj any) error { return b.put(obj) }

func (b *boundPods) put(obj any) error {
	pod, err := ours(obj)
	if err != nil {
		return err
	}
	b.pods[nameOfObject(pod).String()] = pod
	b.emit(b.list())
	return nil
}

func (b *boundPods) Delete(obj any) error {
	pod, err := ours(obj)
	if err != nil {
		return err
	}
	delete(b.pods, nameOfObject(pod).String())
	b.emit(b.list())
	return nil
}

func (b *boundPods) Replace(objs []any, _ string) error {
	pods := map[string]*corev1.Pod{}
	for _, obj := range objs {
		pod, err := ours(obj)
		if err != nil {
			return err
		}
		pods[nameOfObject(pod).String()] = pod
	}
	b.pods = pods
	b.emit(b.list())
	return nil
}

func (b *boundPods) Resync() error { return nil }

// list is oldest first, so that after a restart room goes to whom it went before.
func (b *boundPods) list() []*corev1.Pod {
	return slices.SortedFunc(maps.Values(b.pods), func(x, y *corev1.Pod) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time),
			strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Name, y.Name))
	})
}

// ours marks a pod as one of an API server, whatever its annotations say, and
// drops what nobody here reads. The reflector has decoded it for us alone.
func ours(obj any) (*corev1.Pod, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("the API server sent a %T among the pods", obj)
	}
	pod.ManagedFields = nil
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[AnnotationSource] = SourceAPI
	return pod, nil
}
