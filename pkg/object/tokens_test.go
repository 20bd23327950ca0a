package object

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func tokenOf(t *testing.T, s *Store, pod *corev1.Pod, audience string) string {
	t.Helper()
	data, err := s.Token(t.Context(), pod, &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: new(int64(3600))})
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	return string(data)
}

func TestTokenIsBoundAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		s, _ := newStore(t, a)
		pod := basePod()
		s.SetPods([]*corev1.Pod{pod})
		first := tokenOf(t, s, pod, "")
		if again := tokenOf(t, s, pod, ""); again != first {
			t.Errorf("got %s after %s, want the same as long as it is good", again, first)
		}
		if vault := tokenOf(t, s, pod, "vault"); vault == first {
			t.Error("two audiences have the same token")
		}
		want := authenticationv1.TokenRequestSpec{
			Audiences: []string{"vault"}, ExpirationSeconds: new(int64(3600)),
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "uid-web"},
		}
		if diff := cmp.Diff(want, a.requests[1].Spec); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		s.SetPods(nil)
		if _, err := s.Token(t.Context(), pod, &corev1.ServiceAccountTokenProjection{}); err == nil {
			t.Error("a pod that is gone gets a token")
		}
		s.SetPods([]*corev1.Pod{pod})
		if again := tokenOf(t, s, pod, ""); again == first {
			t.Error("the token outlived its pod")
		}
	})
}

func TestTokenIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		s, woken := newStore(t, a)
		pod := basePod()
		s.SetPods([]*corev1.Pod{pod})
		tokenOf(t, s, pod, "")
		time.Sleep(48*time.Minute - refreshJitter - time.Second)
		synctest.Wait()
		if got := woken.take(); got != nil {
			t.Errorf("woken %v before 80 %% of its life", got)
		}
		time.Sleep(refreshJitter + time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]types.UID{"uid-web"}, woken.take()); diff != "" {
			t.Errorf("at 80 %% of its life (-want +got):\n%s", diff)
		}
		if got := tokenOf(t, s, pod, ""); got != "token-2" {
			t.Errorf("got %s, want a new one", got)
		}

		a.sever(true, io.ErrUnexpectedEOF)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if got := woken.take(); len(got) != 1 {
			t.Fatalf("woken %v", got)
		}
		if got := tokenOf(t, s, pod, ""); got != "token-2" {
			t.Errorf("got %s, want the old one as long as there is no other", got)
		}
		a.sever(false, nil)
		time.Sleep(longestTurn)
		synctest.Wait()
		if got := woken.take(); len(got) != 1 {
			t.Errorf("woken %v, want it as soon as the API server is back", got)
		}
		if got := tokenOf(t, s, pod, ""); got != "token-3" {
			t.Errorf("got %s", got)
		}
	})
}

func TestRefreshAt(t *testing.T) {
	cases := map[string]struct {
		reason      string
		life        time.Duration
		least, most time.Duration
	}{
		"Hour":  {"80 % of an hour, and up to 10 s before", time.Hour, 48*time.Minute - 10*time.Second, 48 * time.Minute},
		"Year":  {"a long one once a day", 365 * 24 * time.Hour, 24*time.Hour - 10*time.Second, 24 * time.Hour},
		"Short": {"the jitter does not eat up a short life", 10 * time.Second, 7 * time.Second, 8 * time.Second},
	}
	now := time.Now()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for range 100 {
				if got := refreshAt(now, tc.life).Sub(now); got < tc.least || got > tc.most {
					t.Fatalf("%s: after %s, want between %s and %s", tc.reason, got, tc.least, tc.most)
				}
			}
		})
	}
}
