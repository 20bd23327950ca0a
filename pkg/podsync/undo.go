package podsync

import (
	"context"
	"errors"
	"slices"
	"time"
)

const undoTimeout = 10 * time.Second

// undo holds what to release if we do not finish, oldest first.
type undo []func(context.Context) error

// run releases, newest first, even if ctx has ended.
func (u undo) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var errs []error
	for _, release := range slices.Backward(u) {
		errs = append(errs, release(ctx))
	}
	return errors.Join(errs...)
}
