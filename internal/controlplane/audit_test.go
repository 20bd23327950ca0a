package controlplane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAudit(t *testing.T) {
	const fine = `{"verb":"watch","requestURI":"/api/v1/pods?fieldSelector=spec.nodeName%3Dn","objectRef":{"resource":"pods"},"responseStatus":{"code":200}}`
	cases := map[string]struct {
		reason string
		line   string
		want   string
	}{
		"Fine":      {"a node watches its pods", fine, ""},
		"HalfALine": {"the API server is still writing", fine + "\n" + `{"verb":"wat`, ""},
		"Discovery": {"clients look around", `{"verb":"get","requestURI":"/apis?timeout=1s","responseStatus":{"code":200}}`, ""},
		"EndOfNamespace": {"the node cannot know that a pod's namespace goes",
			`{"verb":"create","requestURI":"/e","objectRef":{"resource":"events"},"responseStatus":{"code":403,"message":"no content in namespace a because it is being terminated"}}`, ""},
		"Early": {"the API server has not noticed yet whose the pod is",
			`{"verb":"get","requestURI":"/s","objectRef":{"resource":"secrets"},"responseStatus":{"code":403,"message":"node: no relationship found between node 'n' and this object"}}`, ""},
		"Forbidden": {"the authorizer has refused it",
			`{"verb":"get","requestURI":"/s","objectRef":{"resource":"secrets"},"responseStatus":{"code":403,"message":"can only read one"}}`, "can only read one"},
		"Unauthorized": {"the certificate is not good", `{"verb":"get","requestURI":"/s","objectRef":{"resource":"pods"},"responseStatus":{"code":401}}`, "401"},
		"Subresource":  {"RBAC may allow it, and no node needs it", `{"verb":"create","requestURI":"/b","objectRef":{"resource":"pods","subresource":"binding"},"responseStatus":{"code":201}}`, "may do"},
		"Verb":         {"", `{"verb":"delete","requestURI":"/n","objectRef":{"resource":"nodes"},"responseStatus":{"code":200}}`, "may do"},
		"Path":         {"", `{"verb":"get","requestURI":"/metrics","responseStatus":{"code":200}}`, "needs"},
		"Nothing":      {"a log that is not written proves nothing", "", "no node asked"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			if err := os.WriteFile(path, []byte(tc.line), 0o600); err != nil {
				t.Fatal(err)
			}
			err := Audit(path)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want %q", tc.reason, err, tc.want)
			}
		})
	}
}
