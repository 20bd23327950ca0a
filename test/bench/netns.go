package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a named network namespace. The thread is
// not used again: it ends with its goroutine.
func inNamespace[T any](name string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		var r result
		var fd int
		if fd, r.err = unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0); r.err == nil {
			if r.err = unix.Setns(fd, unix.CLONE_NEWNET); r.err == nil {
				r.value, r.err = f()
			}
			_ = unix.Close(fd) // opened for reading
		}
		done <- r
	}()
	r := <-done
	return r.value, r.err
}
