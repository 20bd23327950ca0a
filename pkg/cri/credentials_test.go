package cri

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCredentials(t *testing.T) {
	entry := func(key, user string) string { return fmt.Sprintf(`%q: {"username": %q, "password": "p"}`, key, user) }
	cases := map[string]struct {
		reason string
		auths  string
		image  string
		want   []string
	}{
		"Host":        {"an entry is for all images of its registry", entry("quay.io", "a"), "quay.io/org/app:1", []string{"a"}},
		"Other":       {"and for none of another", entry("quay.io", "a"), "ghcr.io/org/app:1", nil},
		"Hub":         {"an image without a registry is Docker Hub's, which has several names", entry("https://index.docker.io/v1/", "a"), "busybox", []string{"a"}},
		"HubShort":    {"one of them", entry("docker.io", "a"), "org/app", []string{"a"}},
		"Longest":     {"the most specific entry is tried first, the others after it", entry("quay.io", "a") + "," + entry("quay.io/org", "b"), "quay.io/org/app", []string{"b", "a"}},
		"Port":        {"a port is part of the host", entry("127.0.0.1:5000", "a") + "," + entry("127.0.0.1", "b"), "127.0.0.1:5000/app", []string{"a"}},
		"Pattern":     {"parts of the host may be patterns", entry("*.example.com", "a"), "eu.example.com/app", []string{"a"}},
		"PatternDots": {"a pattern does not cross a dot", entry("*.com", "a"), "eu.example.com/app", nil},
		"PathPart":    {"a path matches whole parts", entry("quay.io/org", "a"), "quay.io/organisation/app", nil},
		"Version":     {"the version of the API is no part of the path", entry("https://quay.io/v2/", "a"), "quay.io/app", []string{"a"}},
		"VersionLike": {"but what begins like one is", entry("quay.io/v1beta", "a"), "quay.io/beta/app", nil},
		"Digest":      {"a digest changes nothing", entry("quay.io", "a"), "quay.io/app@sha256:" + fmt.Sprintf("%064d", 0), []string{"a"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			found, err := Credentials([]byte(`{"auths": {`+tc.auths+`}}`), tc.image)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range found {
				got = append(got, c.Username)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestCredentialsForms(t *testing.T) {
	got, err := Credentials([]byte(`{"auths": {"quay.io": {"auth": "YW5uYTpwOnE="}, "quay.io/org": {"identitytoken": "t"}}}`), "quay.io/org/app")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Credential{{IdentityToken: "t"}, {Username: "anna", Password: "p:q"}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := Credentials([]byte(`{"auths": {"quay.io": {"auth": "%"}}}`), "quay.io/app"); err == nil {
		t.Error("an auth that is not base64 is accepted")
	}
	if text := fmt.Sprintf("%v %+v %#v", got, got[1], got[1]); text != "[credential of nobody credential of anna] credential of anna credential of anna" {
		t.Errorf("a message tells %s", text)
	}
}

func TestProgressText(t *testing.T) {
	for _, p := range []struct {
		Progress
		percent int
		text    string
	}{
		{Progress{Image: "a:1"}, 0, `pulling image "a:1": 0B`},
		{Progress{Image: "a:1", Done: 310 << 20, Total: 735 << 20}, 42, `pulling image "a:1": 310MiB of 735MiB (42%)`},
	} {
		if got := p.String(); got != p.text {
			t.Errorf("got %q, want %q", got, p.text)
		}
		if percent, ok := ParseProgress(p.String()); !ok || percent != p.percent {
			t.Errorf("%q is read as %d%%, %v", p.text, percent, ok)
		}
	}
	if _, ok := ParseProgress("Back-off pulling image"); ok {
		t.Error("another message is taken for progress")
	}
}
