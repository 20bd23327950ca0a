package controlplane

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
)

// request is what an audit log says of one.
type request struct {
	Verb       string
	RequestURI string
	User       struct{ Username string }
	ObjectRef  struct{ Resource, Subresource, Namespace, Name, APIGroup string }
	// ResponseStatus is what was answered.
	ResponseStatus struct {
		Code    int
		Message string
	}
	UserAgent string
}

// mayAsk is what a node may do under the Node authorizer, as group/resource, or
// group/resource/subresource, to verbs. That the objects are its own is not seen
// here: the API server would have answered 403.
func mayAsk() map[string][]string {
	read := []string{"get", "list", "watch"}
	return map[string][]string{
		"/nodes":                         {"get", "list", "watch", "create", "update", "patch"},
		"/nodes/status":                  {"get", "update", "patch"},
		"/pods":                          {"get", "list", "watch", "create", "delete"},
		"/pods/status":                   {"update", "patch"},
		"/pods/eviction":                 {"create"},
		"/events":                        {"create", "update", "patch"},
		"/secrets":                       read,
		"/configmaps":                    read,
		"/services":                      read,
		"/persistentvolumeclaims":        read,
		"/persistentvolumeclaims/status": {"get", "update", "patch"},
		"/persistentvolumes":             read,
		"/serviceaccounts":               {"get"},
		"/serviceaccounts/token":         {"create"},
		"coordination.k8s.io/leases":     {"get", "create", "update", "patch", "delete"},
		"certificates.k8s.io/certificatesigningrequests": {"get", "list", "watch", "create"},
		"certificates.k8s.io/clustertrustbundles":        read,
		"certificates.k8s.io/podcertificaterequests":     {"get", "list", "watch", "create"},
		"authentication.k8s.io/tokenreviews":             {"create"},
		"authorization.k8s.io/subjectaccessreviews":      {"create"},
		"node.k8s.io/runtimeclasses":                     read,
		"storage.k8s.io/csidrivers":                      read,
		"storage.k8s.io/csinodes":                        {"get", "create", "update", "patch", "delete"},
		"storage.k8s.io/volumeattachments":               read,
		"resource.k8s.io/resourceclaims":                 read,
		"resource.k8s.io/resourceslices":                 {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"},
	}
}

// Audit reads an audit log, and says what nodes asked for and may not have: all
// that was answered with 401 or 403, and all that is not on the list of what a
// node may ask.
func Audit(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	may := mayAsk()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	count, wrong := 0, map[string]int{}
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // the last line may be half written
		}
		count++
		if why := r.objection(may); why != "" {
			wrong[why]++
		}
	}
	errs := []error{lines.Err()}
	if count == 0 {
		errs = append(errs, fmt.Errorf("audit log %s: no node asked for anything", path))
	}
	for why, times := range wrong {
		errs = append(errs, fmt.Errorf("%d times: %s", times, why))
	}
	return errors.Join(errs...)
}

// objection is why a node should not have made the request, empty if it may.
func (r *request) objection(may map[string][]string) string {
	o := r.ObjectRef
	what := o.APIGroup + "/" + o.Resource
	if o.Subresource != "" {
		what += "/" + o.Subresource
	}
	who := fmt.Sprintf("%s (%s): %s %s", r.User.Username, r.UserAgent, r.Verb, r.RequestURI)
	switch {
	case r.early(), r.late():
		return ""
	case r.ResponseStatus.Code == http.StatusForbidden || r.ResponseStatus.Code == http.StatusUnauthorized:
		return fmt.Sprintf("%s was answered with %d: %s", who, r.ResponseStatus.Code, r.ResponseStatus.Message)
	case o.Resource == "":
		path, _, _ := strings.Cut(r.RequestURI, "?")
		if slices.ContainsFunc([]string{"/api", "/apis", "/version", "/healthz", "/readyz", "/livez", "/openapi"}, func(p string) bool {
			return strings.HasPrefix(path, p)
		}) {
			return ""
		}
		return who + " is nothing that a node needs"
	case !slices.Contains(may[what], r.Verb):
		return who + " is nothing that a node may do"
	default:
		return ""
	}
}

// early says whether a read of what a pod refers to, or a token for it, was refused
// because the API server had not noticed yet that the pod is the node's. That happens
// for a moment after every binding, and the node asks again.
func (r *request) early() bool {
	o, message := r.ObjectRef, r.ResponseStatus.Message
	if r.ResponseStatus.Code != http.StatusForbidden {
		return false
	}
	if r.Verb == "create" && o.Resource == "serviceaccounts" && o.Subresource == "token" {
		return strings.Contains(message, "node: no relationship found between node") ||
			strings.Contains(message, "node requested token bound to a pod scheduled on a different node")
	}
	return strings.Contains(message, "node: no relationship found between node") &&
		slices.Contains([]string{"get", "list", "watch"}, r.Verb) &&
		slices.Contains([]string{"secrets", "configmaps", "persistentvolumeclaims", "persistentvolumes", "serviceaccounts"}, o.Resource)
}

// late says whether an event was refused because its namespace goes, which the
// node cannot know.
func (r *request) late() bool {
	return r.ResponseStatus.Code == http.StatusForbidden && r.ObjectRef.Resource == "events" &&
		strings.HasSuffix(r.ResponseStatus.Message, "because it is being terminated")
}
