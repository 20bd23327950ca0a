package cri

import (
	"context"
	"errors"
	"slices"
)

// undo holds what to release if we do not finish, oldest first.
type undo []func(context.Context) error

func (u *undo) add(release func(context.Context) error) { *u = append(*u, release) }

// run releases newest first, although ctx may have ended.
func (u undo) run(ctx context.Context) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	var errs []error
	for _, release := range slices.Backward(u) {
		errs = append(errs, release(ctx))
	}
	return errors.Join(errs...)
}
