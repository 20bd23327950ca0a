package cri

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// Credential is what a registry wants to know of the puller.
type Credential struct{ Username, Password, IdentityToken string }

// String keeps the secret out of messages.
func (c Credential) String() string { return "credential of " + cmp.Or(c.Username, "nobody") }

// GoString is for %#v.
func (c Credential) GoString() string { return c.String() }

// Credentials picks what a docker config.json has for an image. Every entry that
// is for it counts, the most specific one first.
func Credentials(config []byte, image string) ([]Credential, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, err
	}
	var file struct {
		Auths map[string]struct{ Username, Password, Auth, IdentityToken string }
	}
	if err := json.Unmarshal(config, &file); err != nil {
		return nil, fmt.Errorf("docker configuration: %w", err)
	}
	var keys []string
	for key := range file.Auths {
		if matchRegistry(key, named) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(registryKey(b)), len(registryKey(a))), strings.Compare(b, a))
	})
	var out []Credential
	for _, key := range keys {
		a := file.Auths[key]
		c := Credential{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}
		if a.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				return nil, fmt.Errorf("docker configuration: auth of %s: %w", key, err)
			}
			c.Username, c.Password, _ = strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		}
		out = append(out, c)
	}
	return out, nil
}

// dockerCredentials reads them from a file, which need not exist.
func dockerCredentials(path, image string) ([]Credential, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read registry credentials: %w", err)
	}
	found, err := Credentials(data, image)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return found, nil
}

// registryKey is an entry's name without what says nothing of the image: the
// scheme, the version of the API, and Docker Hub's several names.
func registryKey(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ := strings.Cut(strings.TrimSuffix(key, "/"), "/")
	for _, version := range []string{"v1", "v2"} {
		if path == version {
			path = ""
		}
		path = strings.TrimPrefix(path, version+"/")
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	return strings.TrimSuffix(host+"/"+path, "/")
}

// matchRegistry says whether an entry of a docker configuration is for an image.
// Parts of the host may be patterns; a path matches as a prefix.
func matchRegistry(key string, named reference.Named) bool {
	host, path, _ := strings.Cut(registryKey(key), "/")
	want, have := strings.Split(host, "."), strings.Split(reference.Domain(named), ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := filepath.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	image := reference.Path(named)
	return path == "" || image == path || strings.HasPrefix(image, path+"/")
}
