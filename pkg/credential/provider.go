package credential

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1"
	protocol "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"k8s.io/utils/ptr"
)

// TokenLife is that of a token which a program is given: the shortest there is.
const TokenLife = 10 * time.Minute

const (
	// runTimeout is how long a program may take.
	runTimeout = time.Minute
	// mostOutput is more than any answer has.
	mostOutput = 1 << 20
	// mostComplaint is what is told of a program's last words.
	mostComplaint = 1 << 10
)

// Credential is what a registry wants to know.
type Credential = struct{ Username, Password, IdentityToken string }

// Account is the service account of the pod that an image is for.
type Account struct {
	// Get reads it, Token asks for a token of it for the pod.
	Get   func(ctx context.Context) (*corev1.ServiceAccount, error)
	Token func(ctx context.Context, audience string) (string, error)
}

// Providers are the programs of this machine. A nil one has none.
type Providers struct{ list []*provider }

// Credentials are what all programs say that are for an image, in their order.
// account is nil for a pod without one. An error does not take away what the other
// programs have.
func (p *Providers) Credentials(ctx context.Context, name string, account *Account) ([]Credential, error) {
	if p == nil {
		return nil, nil
	}
	i, err := parseImage(name)
	if err != nil {
		return nil, err
	}
	var out []Credential
	var errs []error
	for _, one := range p.list {
		found, err := one.credentials(ctx, i, account)
		if err != nil {
			errs = append(errs, fmt.Errorf("credential provider %s: %w", one.config.Name, err))
		}
		out = append(out, found...)
	}
	return out, errors.Join(errs...)
}

// provider is one program and what it has said.
type provider struct {
	config  *kubeletconfig.CredentialProvider
	program string
	match   []pattern

	turn  chan struct{} // capacity 1; who holds it may use cache
	cache map[string]answer
}

// answer holds until a time.
type answer struct {
	auth  map[string]Credential
	until time.Time
}

func newProvider(c *kubeletconfig.CredentialProvider, program string) *provider {
	p := &provider{config: c, program: program, turn: make(chan struct{}, 1), cache: map[string]answer{}}
	for _, m := range c.MatchImages {
		if pattern, err := parsePattern(m); err == nil { // else Load fails
			p.match = append(p.match, pattern)
		}
	}
	return p
}

func (p *provider) credentials(ctx context.Context, i image, account *Account) ([]Credential, error) {
	if !slices.ContainsFunc(p.match, func(m pattern) bool { return m.matches(i) }) {
		return nil, nil
	}
	req := protocol.CredentialProviderRequest{
		TypeMeta: metav1.TypeMeta{Kind: "CredentialProviderRequest", APIVersion: p.config.APIVersion}, Image: i.name,
	}
	who, skip, err := p.introduce(ctx, &req, account)
	if err != nil || skip {
		return nil, err
	}
	select {
	case p.turn <- struct{}{}: // who comes second finds an answer
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := time.Now()
	maps.DeleteFunc(p.cache, func(_ string, a answer) bool { return !now.Before(a.until) })
	for _, scope := range scopes(i) {
		if a, ok := p.cache[scope+who]; ok {
			return matching(a.auth, i)
		}
	}
	a, scope, err := p.ask(ctx, req, i)
	if err != nil {
		return nil, err
	}
	if now.Before(a.until) {
		p.cache[scope+who] = a
	}
	return matching(a.auth, i)
}

// scopes are what an answer may hold for, beginning with the narrowest.
func scopes(i image) []string {
	return []string{"image " + i.name, "registry " + i.registry, "global"}
}

// introduce adds what the program wants to know of the pod's service account, and
// returns what answers are kept apart by. skip says that the program is not for this
// pod.
func (p *provider) introduce(ctx context.Context, req *protocol.CredentialProviderRequest, account *Account) (who string, skip bool, err error) {
	t := p.config.TokenAttributes
	if t == nil {
		return "", false, nil
	}
	if account == nil {
		return "", ptr.Deref(t.RequireServiceAccount, true), nil
	}
	sa, err := account.Get(ctx)
	if err != nil {
		return "", false, fmt.Errorf("service account: %w", err)
	}
	req.ServiceAccountAnnotations = map[string]string{}
	for _, key := range t.RequiredServiceAccountAnnotationKeys {
		value, ok := sa.Annotations[key]
		if !ok {
			return "", false, fmt.Errorf("service account %s/%s has no annotation %s, which the program requires", sa.Namespace, sa.Name, key)
		}
		req.ServiceAccountAnnotations[key] = value
	}
	for _, key := range t.OptionalServiceAccountAnnotationKeys {
		if value, ok := sa.Annotations[key]; ok {
			req.ServiceAccountAnnotations[key] = value
		}
	}
	if req.ServiceAccountToken, err = account.Token(ctx, t.ServiceAccountTokenAudience); err != nil {
		return "", false, fmt.Errorf("token of service account %s/%s: %w", sa.Namespace, sa.Name, err)
	}
	parts := []any{sa.Namespace, sa.Name, sa.UID, req.ServiceAccountAnnotations}
	if t.CacheType == kubeletconfig.TokenServiceAccountTokenCacheType {
		parts = append(parts, req.ServiceAccountToken)
	}
	data, err := json.Marshal(parts)
	sum := sha256.Sum256(data)
	return " for " + hex.EncodeToString(sum[:]), false, err
}

// ask runs the program.
func (p *provider) ask(ctx context.Context, req protocol.CredentialProviderRequest, i image) (answer, string, error) {
	in, err := json.Marshal(req)
	if err != nil {
		return answer{}, "", err
	}
	out, err := p.run(ctx, in)
	if err != nil {
		return answer{}, "", err
	}
	var resp protocol.CredentialProviderResponse
	if err := json.Unmarshal(out, &resp); err != nil {
		return answer{}, "", errors.New("its output is not JSON of a CredentialProviderResponse") // the cause would show the output
	}
	if resp.APIVersion != p.config.APIVersion || resp.Kind != "CredentialProviderResponse" {
		return answer{}, "", fmt.Errorf("it answered with %q of %q, not with CredentialProviderResponse of %q", resp.Kind, resp.APIVersion, p.config.APIVersion)
	}
	scope := ""
	switch all := scopes(i); resp.CacheKeyType {
	case protocol.ImagePluginCacheKeyType:
		scope = all[0]
	case protocol.RegistryPluginCacheKeyType:
		scope = all[1]
	case protocol.GlobalPluginCacheKeyType:
		scope = all[2]
	default:
		return answer{}, "", fmt.Errorf("cacheKeyType %q of its answer is not Image, Registry or Global", resp.CacheKeyType)
	}
	keep := ptr.Deref(resp.CacheDuration, *p.config.DefaultCacheDuration).Duration
	a := answer{auth: map[string]Credential{}, until: time.Now().Add(keep)}
	for key, c := range resp.Auth {
		a.auth[key] = Credential{Username: c.Username, Password: c.Password}
	}
	return a, scope, nil
}

func (p *provider) run(ctx context.Context, in []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.program, p.config.Args...)
	cmd.Env = os.Environ()
	for _, e := range p.config.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = time.Second // a child of the program may hold its output open
	out, complaint := &limited{most: mostOutput}, &limited{most: mostComplaint}
	cmd.Stdout, cmd.Stderr = out, complaint
	err := cmd.Run()
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("no answer within %s", runTimeout)
	case err != nil:
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(complaint.kept.String()))
	case out.more:
		return nil, fmt.Errorf("its output is longer than %d bytes", mostOutput)
	}
	return out.kept.Bytes(), nil
}

// limited keeps the beginning of what is written.
type limited struct {
	kept bytes.Buffer // not embedded: its ReadFrom would let everything in
	most int
	more bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p)
	if room := l.most - l.kept.Len(); n > room {
		l.more = true
		p = p[:room]
	}
	_, err := l.kept.Write(p)
	return n, err
}
