package credential

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	kubeletconfig "k8s.io/kubelet/config/v1"
	"sigs.k8s.io/yaml"
)

const (
	configKind  = "CredentialProviderConfig"
	configGroup = "kubelet.config.k8s.io/"
	apiGroup    = "credentialprovider.kubelet.k8s.io/"
)

// versions are those of the kubelet; what they say is the same.
func versions() []string { return []string{"v1", "v1beta1", "v1alpha1"} }

// Load reads a file, or all of a directory in the order of their names, and makes
// sure that every program is there. Its error has every problem.
func Load(path, binDir string) (*Providers, error) {
	files, err := configFiles(path)
	if err != nil {
		return nil, fmt.Errorf("credential providers: %w", err)
	}
	p := &Providers{}
	names := sets.New[string]()
	var errs []error
	for _, file := range files {
		config, err := read(file)
		if err != nil {
			return nil, err
		}
		for i := range config.Providers {
			c := &config.Providers[i]
			bad := check(c, binDir)
			if names.Has(c.Name) {
				bad = append(bad, errors.New("there is another one of this name"))
			}
			names.Insert(c.Name)
			for _, err := range bad {
				errs = append(errs, fmt.Errorf("%s: provider %q: %w", file, c.Name, err))
			}
			p.list = append(p.list, newProvider(c, filepath.Join(binDir, c.Name)))
		}
	}
	return p, errors.Join(errs...)
}

func configFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no .json, .yaml or .yml file is in this directory", path)
	}
	return files, nil
}

func read(file string) (*kubeletconfig.CredentialProviderConfig, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("credential providers: %w", err)
	}
	var config kubeletconfig.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(data, &config); err != nil {
		return nil, fmt.Errorf("credential providers: %s: %w", file, err)
	}
	version, ours := strings.CutPrefix(config.APIVersion, configGroup)
	switch {
	case config.Kind != configKind || !ours || !slices.Contains(versions(), version):
		return nil, fmt.Errorf("%s: want kind %s of %sv1, not %q of %q", file, configKind, configGroup, config.Kind, config.APIVersion)
	case len(config.Providers) == 0:
		return nil, fmt.Errorf("%s: providers: at least one is needed", file)
	}
	return &config, nil
}

// check finds what is wrong with a provider.
func check(c *kubeletconfig.CredentialProvider, binDir string) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case c.Name == "" || c.Name == "." || c.Name == ".." || strings.ContainsAny(c.Name, "/\\ "):
		bad("name: must be that of a program in %s, without a path", binDir)
	default:
		info, err := os.Stat(filepath.Join(binDir, c.Name))
		switch {
		case err != nil:
			bad("program: %w", err)
		case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
			bad("program: %s is not executable", filepath.Join(binDir, c.Name))
		}
	}
	if version, ours := strings.CutPrefix(c.APIVersion, apiGroup); !ours || !slices.Contains(versions(), version) {
		bad("apiVersion: %q is not %sv1", c.APIVersion, apiGroup)
	}
	if len(c.MatchImages) == 0 {
		bad("matchImages: at least one is needed")
	}
	for i, m := range c.MatchImages {
		if _, err := parsePattern(m); err != nil {
			bad("matchImages[%d]: %w", i, err)
		}
	}
	if c.DefaultCacheDuration == nil || c.DefaultCacheDuration.Duration < 0 {
		bad("defaultCacheDuration: must be set, and not be negative")
	}
	if c.TokenAttributes != nil {
		errs = append(errs, checkToken(c.TokenAttributes)...)
	}
	return errs
}

func checkToken(t *kubeletconfig.ServiceAccountTokenAttributes) []error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("tokenAttributes."+format, args...))
	}
	if t.ServiceAccountTokenAudience == "" {
		bad("serviceAccountTokenAudience: must be set")
	}
	if t.CacheType != kubeletconfig.TokenServiceAccountTokenCacheType && t.CacheType != kubeletconfig.ServiceAccountServiceAccountTokenCacheType {
		bad("cacheType: %q is neither Token nor ServiceAccount", t.CacheType)
	}
	switch {
	case t.RequireServiceAccount == nil:
		bad("requireServiceAccount: must be set")
	case !*t.RequireServiceAccount && len(t.RequiredServiceAccountAnnotationKeys) > 0:
		bad("requireServiceAccount: must be true where annotations are required")
	}
	return errs
}
