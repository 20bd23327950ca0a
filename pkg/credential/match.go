package credential

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// pattern says for which images a provider or a credential is: globs for the parts
// of the host, the port if there is one, and a prefix of the path.
type pattern struct {
	host       []string
	port, path string
}

func parsePattern(s string) (pattern, error) {
	u, err := url.Parse("https://" + strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://"))
	if err != nil {
		return pattern{}, err
	}
	p := pattern{host: strings.Split(u.Hostname(), "."), port: u.Port(), path: u.Path}
	if u.Hostname() == "" {
		return p, fmt.Errorf("%q names no registry", s)
	}
	for _, part := range p.host {
		if _, err := path.Match(part, ""); err != nil {
			return p, fmt.Errorf("%q: %w", s, err)
		}
	}
	if strings.ContainsAny(p.path, "*?[") {
		return p, errors.New("a pattern is possible only in the registry's name")
	}
	return p, nil
}

// image is what matters of an image's name.
type image struct {
	registry string // with the port
	name     string // registry and path, without tag and digest
}

func parseImage(s string) (image, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return image{}, fmt.Errorf("image %q: %w", s, err)
	}
	return image{registry: reference.Domain(named), name: named.Name()}, nil
}

func (p pattern) matches(i image) bool {
	u, err := url.Parse("https://" + i.name)
	if err != nil || p.port != "" && p.port != u.Port() {
		return false
	}
	host := strings.Split(u.Hostname(), ".")
	if len(host) != len(p.host) {
		return false
	}
	for n := range host {
		if ok, err := path.Match(p.host[n], host[n]); err != nil || !ok {
			return false
		}
	}
	return strings.HasPrefix(u.Path, p.path)
}

// matching are the entries of an answer that are for an image, the most specific one
// first.
func matching(auth map[string]Credential, i image) ([]Credential, error) {
	var keys []string
	var errs []error
	for key := range auth {
		p, err := parsePattern(key)
		if err != nil {
			errs = append(errs, fmt.Errorf("auth[%q]: %w", key, err))
		} else if p.matches(i) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { // reversed: the longer comes first, and a pattern after what it stands for
		return cmp.Compare(b, a)
	})
	var out []Credential
	for _, k := range keys {
		out = append(out, auth[k])
	}
	return out, errors.Join(errs...)
}
