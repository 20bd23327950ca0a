package server

import (
	"errors"
	"net/http"
	"os"
)

// Error is an answer that is not 200: what went wrong and which status says so.
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return e.Message }

// NotFound is the error for an object that does not exist.
func NotFound(message string) error {
	return &Error{Code: http.StatusNotFound, Message: message}
}

// BadRequest is the error for a request that cannot be understood.
func BadRequest(message string) error {
	return &Error{Code: http.StatusBadRequest, Message: message}
}

var errNotServed = &Error{Code: http.StatusNotImplemented, Message: "this agent does not serve that request"}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	code := status(err)
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, err.Error(), code)
}

// status maps an error to its HTTP status code.
func status(err error) int {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, os.ErrNotExist):
		return http.StatusNotFound
	default:
		return http.StatusInternalServerError
	}
}
