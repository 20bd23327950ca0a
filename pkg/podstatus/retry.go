package podstatus

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// writeTimeout is how long an API server may take to answer a request.
	writeTimeout = 30 * time.Second
	// What fails is tried again after firstRetry, and ever later up to lastRetry.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// backOff is the pause after so many failures, counted from 0.
func backOff(failures int) time.Duration {
	return min(firstRetry<<min(failures, 10), lastRetry)
}

// isRefused says whether an API server has answered, and will not answer otherwise
// when it is asked the same again soon.
func isRefused(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && !apierrors.IsTooManyRequests(err) && !apierrors.IsServerTimeout(err) &&
		!apierrors.IsTimeout(err) && !apierrors.IsInternalError(err) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsUnauthorized(err)
}
