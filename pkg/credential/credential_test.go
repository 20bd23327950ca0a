package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// site is a machine with programs: each is this test's binary by another name.
type site struct {
	t   *testing.T
	dir string
}

const valid = `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: one
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.example.com", "registry.io:5000/team"]
  defaultCacheDuration: 1h
  args: [-x, "y z"]
  env: [{name: GREETING, value: hello}]
`

// program writes a shell script that answers answer, and notes what it is told.
func (s *site) program(name, answer string) {
	s.t.Helper()
	script := fmt.Sprintf("#!/bin/sh\necho \"$GREETING $*\" >>%[1]s/%[2]s.calls\ncat >>%[1]s/%[2]s.requests\n%[3]s\n", s.dir, name, answer)
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func says(cacheKey, duration, auth string) string {
	return fmt.Sprintf(`echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":%q,%s"auth":{%s}}'`, cacheKey, duration, auth)
}

const anna = `"*.example.com":{"username":"anna","password":"p"}`

func newSite(t *testing.T) *site { return &site{t: t, dir: t.TempDir()} }

func (s *site) load(config string) (*Providers, error) {
	s.t.Helper()
	file := filepath.Join(s.dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return Load(file, s.dir)
}

func (s *site) lines(file string) []string {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestProtocol(t *testing.T) {
	s := newSite(t)
	s.program("one", says("Registry", "", anna+`,"a.example.com/team":{"username":"team","password":"q"},"other.io":{"username":"no"}`))
	p, err := s.load(valid)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Credentials(t.Context(), "a.example.com/team/app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Credential{{Username: "team", Password: "q"}, {Username: "anna", Password: "p"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is for the image, the most specific first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"hello -x y z"}, s.lines("one.calls")); diff != "" {
		t.Errorf("arguments and environment (-want +got):\n%s", diff)
	}
	var req map[string]any
	if err := json.Unmarshal([]byte(s.lines("one.requests")[0]), &req); err != nil {
		t.Fatal(err)
	}
	wantReq := map[string]any{"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderRequest", "image": "a.example.com/team/app"}
	if diff := cmp.Diff(wantReq, req); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if got, err := p.Credentials(t.Context(), "elsewhere.io/app", nil); got != nil || err != nil || len(s.lines("one.calls")) != 1 {
		t.Errorf("an image that is not the program's: %v, %v", got, err)
	}
}

func TestCache(t *testing.T) {
	cases := map[string]struct {
		reason, answer string
		calls          int // for an image, the same with another tag, another of the registry, one of another registry
	}{
		"Image":    {"an answer for one image", says("Image", "", anna), 3},
		"Registry": {"for a registry", says("Registry", "", anna), 2},
		"Global":   {"for everything", says("Global", "", anna), 1},
		"Nothing":  {"also that there is none", says("Global", "", ""), 1},
		"NotKept":  {"an answer may forbid to keep it", says("Global", `"cacheDuration":"0s",`, anna), 4},
		"Failed":   {"a failure is not kept", "exit 1", 4},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.program("one", tc.answer)
			p, err := s.load(valid)
			if err != nil {
				t.Fatal(err)
			}
			for _, image := range []string{"a.example.com/x:1", "a.example.com/x:2", "a.example.com/y:1", "b.example.com/x:1"} {
				_, _ = p.Credentials(t.Context(), image, nil) // its failure is another test's
			}
			if got := len(s.lines("one.calls")); got != tc.calls {
				t.Errorf("%s: the program was run %d times, want %d", tc.reason, got, tc.calls)
			}
		})
	}
}

func TestBadPrograms(t *testing.T) {
	cases := map[string]struct{ reason, answer, err string }{
		"Fails":    {"its last words are told", "echo no network >&2; exit 3", "exit status 3: no network"},
		"NoJSON":   {"what may be a secret is not", "echo hunter2", "is not JSON"},
		"Version":  {"another protocol", `echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v2","kind":"CredentialProviderResponse"}'`, "v2"},
		"CacheKey": {"a key that means nothing", says("Pod", "", anna), `cacheKeyType "Pod"`},
		"Endless":  {"more than an answer can be", "head -c 2000000 /dev/zero", "longer than"},
		"BadKey":   {"an entry that is for nothing", says("Image", "", `"a.*/b*":{"username":"x","password":"y"}`), "auth["},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.program("one", tc.answer)
			s.program("two", says("Image", "", anna))
			second := strings.TrimPrefix(strings.Replace(valid, "name: one", "name: two", 1), valid[:strings.Index(valid, "- name")])
			p, err := s.load(valid + second)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Credentials(t.Context(), "a.example.com/x", nil)
			if err == nil || !strings.Contains(err.Error(), "credential provider one: ") || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: error is %v, want %q", tc.reason, err, tc.err)
			}
			if len(got) != 1 {
				t.Errorf("%s: got %v, want what the other program has", tc.reason, got)
			}
		})
	}
}

func TestServiceAccount(t *testing.T) {
	const attributes = "  tokenAttributes: {serviceAccountTokenAudience: reg, cacheType: ServiceAccount, requireServiceAccount: true, requiredServiceAccountAnnotationKeys: [role], optionalServiceAccountAnnotationKeys: [zone]}\n"
	s := newSite(t)
	s.program("one", says("Registry", "", anna))
	p, err := s.load(valid + attributes)
	if err != nil {
		t.Fatal(err)
	}
	tokens := 0
	account := func(name string, annotations map[string]string) *Account {
		return &Account{
			Get: func(context.Context) (*corev1.ServiceAccount, error) {
				return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: annotations}}, nil
			},
			Token: func(_ context.Context, audience string) (string, error) {
				tokens++
				return fmt.Sprint(audience, tokens), nil
			},
		}
	}
	ask := func(a *Account) ([]Credential, error) { return p.Credentials(t.Context(), "a.example.com/x", a) }
	if got, err := ask(nil); got != nil || err != nil {
		t.Errorf("a pod without an account: %v, %v, want the program not to be asked", got, err)
	}
	if _, err := ask(account("clerk", nil)); err == nil || !strings.Contains(err.Error(), "has no annotation role") {
		t.Errorf("error is %v", err)
	}
	for range 2 {
		if got, err := ask(account("clerk", map[string]string{"role": "r", "more": "m"})); len(got) != 1 || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
	if got, err := ask(account("boss", map[string]string{"role": "r"})); len(got) != 1 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if calls := s.lines("one.calls"); len(calls) != 2 {
		t.Errorf("the program was run %d times, want once for each account", len(calls))
	}
	var req struct {
		ServiceAccountToken       string
		ServiceAccountAnnotations map[string]string
	}
	if err := json.NewDecoder(strings.NewReader(s.lines("one.requests")[0])).Decode(&req); err != nil {
		t.Fatal(err)
	}
	if req.ServiceAccountToken != "reg1" || len(req.ServiceAccountAnnotations) != 1 {
		t.Errorf("the program was told %+v", req)
	}
}

func TestLoad(t *testing.T) {
	replace := func(old, new string) string { return strings.Replace(valid, old, new, 1) }
	cases := map[string]struct{ reason, config, err string }{
		"Valid":     {"the base of the others", valid, ""},
		"Beta":      {"older versions say the same", replace("kubelet.config.k8s.io/v1\n", "kubelet.config.k8s.io/v1beta1\n"), ""},
		"Kind":      {"another file by mistake", replace("kind: Cred", "kind: Kubelet"), "want kind CredentialProviderConfig"},
		"Unknown":   {"a field that is misspelt", valid + "  matchImage: [x]\n", "matchImage"},
		"None":      {"nothing to ask", valid[:strings.Index(valid, "- name")], "at least one"},
		"Path":      {"a program of somewhere else", replace("name: one", "name: ../one"), "without a path"},
		"Missing":   {"a program that is not there", replace("name: one", "name: two"), "two: no such file"},
		"Protocol":  {"a protocol that nobody speaks", replace("kubelet.k8s.io/v1\n  match", "kubelet.k8s.io/v9\n  match"), "v9"},
		"Match":     {"nothing to match", replace(`["*.example.com", "registry.io:5000/team"]`, "[]"), "matchImages"},
		"Glob":      {"a path cannot be a pattern", replace("/team", "/*"), "matchImages[1]"},
		"Cache":     {"how long to keep an answer", replace("defaultCacheDuration: 1h", "defaultCacheDuration: null"), "defaultCacheDuration"},
		"TokenType": {"what to keep apart", valid + "  tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Pod, requireServiceAccount: true}\n", "cacheType"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.program("one", "exit 0")
			_, err := s.load(tc.config)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), s.dir)) {
				t.Errorf("%s: error is %v, want %q", tc.reason, err, tc.err)
			}
		})
	}
	s := newSite(t)
	s.program("one", "exit 0")
	s.program("two", "exit 0")
	for name, config := range map[string]string{"a.yaml": valid, "b.yml": strings.Replace(valid, "name: one", "name: two", 1), "c.txt": "{"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := Load(s.dir, s.dir); err != nil || len(p.list) != 2 {
		t.Errorf("a directory: %v, want the providers of both files", err)
	}
}

func TestMatches(t *testing.T) {
	cases := map[string]struct {
		pattern, image string
		want           bool
	}{
		"Same":      {"quay.io", "quay.io/a/b", true},
		"Other":     {"quay.io", "gcr.io/a", false},
		"Glob":      {"*.azurecr.io", "x.azurecr.io/a", true},
		"OnePart":   {"*.io", "x.azurecr.io/a", false},
		"PartGlob":  {"app*.k8s.io", "app7.k8s.io/a", true},
		"Port":      {"r.io:5000", "r.io:5000/a", true},
		"OtherPort": {"r.io:5000", "r.io:5001/a", false},
		"AnyPort":   {"r.io", "r.io:5001/a", true},
		"Path":      {"r.io/team", "r.io/team/a", true},
		"OtherPath": {"r.io/team", "r.io/folk/a", false},
		"Scheme":    {"https://r.io", "r.io/a", true},
		"Docker":    {"docker.io", "busybox", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p, err := parsePattern(tc.pattern)
			if err != nil {
				t.Fatal(err)
			}
			i, err := parseImage(tc.image)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.matches(i); got != tc.want {
				t.Errorf("%s matches %s: got %v", tc.pattern, tc.image, got)
			}
		})
	}
}
