package podsync

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestTiersAreResizedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.failing["tiers"] = errors.New("systemd is being restarted")
		a := n.run(t, t.TempDir())
		defer a.end()
		a.want(basePod())
		state := func() (pods, tries int) {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.tiers, n.resizes
		}
		_, before := state()
		time.Sleep(time.Hour)
		pods, after := state()
		if pods != 0 || after <= before || after-before > 30 {
			t.Errorf("what fails is tried again, and ever less often: %d times in an hour", after-before)
		}
		n.mu.Lock()
		delete(n.failing, "tiers")
		n.mu.Unlock()
		time.Sleep(5 * time.Minute)
		pods, before = state()
		if pods != 1 {
			t.Errorf("without a change of the pods the tiers are fit again, got %d pods", pods)
		}
		time.Sleep(time.Hour)
		if _, after = state(); after != before {
			t.Errorf("nothing wakes it when all is well, got %d tries", after-before)
		}
	})
}
