package object

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	certificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// api is an API server in memory, as far as objects are read from it. It is a
// transport, so that it lives in the time of a test.
type api struct {
	mu       sync.Mutex // guards all below
	version  int
	objects  map[string]map[string]any // by collection and name
	streams  map[*stream]bool
	asked    []string                         // method, path and selectors
	refuse   func(r *http.Request) (code int) // 0 is no refusal
	down     bool
	requests []authenticationv1.TokenRequest
}

type stream struct {
	collection, name string
	body             *io.PipeWriter
}

func newAPI() *api {
	return &api{version: 10, objects: map[string]map[string]any{}, streams: map[*stream]bool{}}
}

// put makes or changes an object; a nil one is deleted.
func (a *api) put(collection, name string, o map[string]any) {
	a.mu.Lock()
	a.version++
	change := "MODIFIED"
	old, known := a.objects[collection][name]
	switch {
	case o == nil:
		change, o = "DELETED", old.(map[string]any)
		delete(a.objects[collection], name)
	case !known:
		change = "ADDED"
	}
	o["metadata"] = map[string]any{"name": name, "uid": name, "resourceVersion": strconv.Itoa(a.version)}
	if change != "DELETED" {
		if a.objects[collection] == nil {
			a.objects[collection] = map[string]any{}
		}
		a.objects[collection][name] = o
	}
	var to []*stream
	for s := range a.streams {
		if s.collection == collection && (s.name == "" || s.name == name) {
			to = append(to, s)
		}
	}
	a.mu.Unlock()
	for _, s := range to {
		s.send(change, o)
	}
	synctest.Wait()
}

func (s *stream) send(change string, o any) {
	data, err := json.Marshal(map[string]any{"type": change, "object": o})
	if err != nil {
		panic(err)
	}
	_, _ = s.body.Write(data) // a client that has gone is no error
}

// sever ends every watch with err, which is nil for the good order, and says
// whether the server is away from now on.
func (a *api) sever(down bool, err error) {
	a.mu.Lock()
	a.down = down
	for s := range a.streams {
		s.body.CloseWithError(err)
		delete(a.streams, s)
	}
	a.mu.Unlock()
	synctest.Wait()
}

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	query := r.URL.Query()
	what := r.Method
	if query.Get("watch") != "" {
		what = "WATCH"
	}
	a.asked = append(a.asked, strings.TrimSpace(fmt.Sprint(what, " ", r.URL.Path, " ", query.Get("fieldSelector"), query.Get("labelSelector"))))
	if a.down {
		return nil, &url.Error{Op: r.Method, URL: r.URL.String(), Err: io.ErrUnexpectedEOF}
	}
	if a.refuse != nil {
		if code := a.refuse(r); code != 0 {
			return answer(code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reasons[code], Code: int32(code), Message: "refused"}), nil
		}
	}
	if r.Method == http.MethodPost {
		return a.issue(r)
	}
	collection, name := r.URL.Path, ""
	if single, ok := strings.CutPrefix(query.Get("fieldSelector"), "metadata.name="); ok {
		name = single
	}
	if what == "WATCH" {
		body, w := io.Pipe()
		context.AfterFunc(r.Context(), func() { w.CloseWithError(context.Canceled) })
		a.streams[&stream{collection, name, w}] = true
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, Request: r}, nil
	}
	items := []any{}
	for n, o := range a.objects[collection] {
		if name == "" || n == name {
			items = append(items, o)
		}
	}
	if o, single := a.objects[collection[:strings.LastIndex(collection, "/")]][collection[strings.LastIndex(collection, "/")+1:]]; single {
		return answer(200, o), nil
	}
	return answer(200, map[string]any{"metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version)}, "items": items}), nil
}

// issue answers a token request.
func (a *api) issue(r *http.Request) (*http.Response, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var req authenticationv1.TokenRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, err
	}
	a.requests = append(a.requests, req)
	req.Status.Token = fmt.Sprintf("token-%d", len(a.requests))
	return answer(201, req), nil
}

var reasons = map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 410: metav1.StatusReasonExpired, 500: metav1.StatusReasonInternalError}

func answer(code int, o any) *http.Response {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(data))}
}

// log takes what was asked since the last call.
func (a *api) log() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.asked
	a.asked = nil
	return out
}

// woken collects wake-ups.
type woken struct {
	mu   sync.Mutex // guards uids
	uids []types.UID
}

func (w *woken) wake(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.uids = append(w.uids, uid)
}

func (w *woken) take() []types.UID {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.uids
	w.uids = nil
	return out
}

// newStore runs a Store on a, as long as the test does.
func newStore(t *testing.T, a *api) (*Store, *woken) {
	t.Helper()
	return newStoreIn(t, t.Context(), a, "")
}

// newStoreIn runs a Store until ctx ends, which keeps what it knows in dir.
func newStoreIn(t *testing.T, ctx context.Context, a *api, dir string) (*Store, *woken) { //nolint:revive // t comes first in tests
	t.Helper()
	cfg := &rest.Config{Host: "http://api.invalid", Transport: a, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	core, err := corev1client.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := certificatesv1.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &woken{}
	s := New(Config{NodeName: "node", KeepDir: dir, Core: core, Certificates: certificates, Wake: w.wake, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s, w
}

// basePod is the pod that each case changes: it refers to nothing but the API server.
func basePod(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "uid-web"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "clerk", EnableServiceLinks: new(false), Containers: []corev1.Container{{Name: "main"}},
		},
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

func withConfigMap(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}},
		}})
	}
}

const configMapsOfShop = "/api/v1/namespaces/shop/configmaps"

func configMap(value string) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]string{"key": value}}
}
