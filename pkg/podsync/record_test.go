package podsync

import (
	"os"
	"testing"
)

func TestBrokenRecord(t *testing.T) {
	r := records{dir: t.TempDir()}
	if err := os.WriteFile(r.path("x"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if rec, err := r.load("x"); err == nil || rec != nil {
		t.Errorf("a broken record is an error: %v", rec)
	}
	if rec, err := r.load("x"); err != nil || rec != nil {
		t.Errorf("but only once: %v %v", rec, err)
	}
}
