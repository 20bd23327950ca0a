package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLockState(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockState(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		if _, err := lockState(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another agent runs") {
			t.Errorf("second lock: %v, want to hear of another agent", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		time.AfterFunc(time.Second, unlock) // what is left of a killed agent goes
		again, err := lockState(t.Context(), dir)
		if err != nil {
			t.Fatalf("lock that becomes free: %v", err)
		}
		again()
	})
	unlock, err = lockState(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lockState(stopped, dir); err == nil {
		t.Error("locked twice")
	}
}
