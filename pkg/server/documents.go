package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

func (s *service) pods(w http.ResponseWriter, r *http.Request) error {
	if s.Pods == nil {
		return errNotServed
	}
	list, err := s.Pods(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, list)
}

func (s *service) watchPods(w http.ResponseWriter, r *http.Request) error {
	if s.WatchPods == nil {
		return errNotServed
	}
	w.Header().Set("Content-Type", "application/json;stream=watch")
	flush := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	return s.WatchPods(r.Context(), func(e PodEvent) error {
		if err := enc.Encode(e); err != nil {
			return err
		}
		return flush.Flush()
	})
}

func (s *service) events(w http.ResponseWriter, r *http.Request) error {
	if s.Events == nil {
		return errNotServed
	}
	list, err := s.Events(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		return err
	}
	return writeJSON(w, list)
}

func (s *service) inspect(w http.ResponseWriter, r *http.Request) error {
	if s.Inspect == nil {
		return errNotServed
	}
	doc, err := s.Inspect(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		return err
	}
	return writeJSON(w, doc)
}

func (s *service) restart(w http.ResponseWriter, r *http.Request) error {
	if s.Restart == nil {
		return errNotServed
	}
	container := strings.TrimSpace(r.URL.Query().Get("container"))
	if err := s.Restart(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), container); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *service) summary(w http.ResponseWriter, r *http.Request) error {
	if s.Summary == nil {
		return errNotServed
	}
	only, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory"))
	doc, err := s.Summary(r.Context(), only)
	if err != nil {
		return err
	}
	return writeJSON(w, doc)
}

// document serves what f returns as JSON.
func document(f func(context.Context) (any, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if f == nil {
			return errNotServed
		}
		doc, err := f(r.Context())
		if err != nil {
			return err
		}
		return writeJSON(w, doc)
	}
}

// foreign serves what brings its own handler.
func foreign(h http.Handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if h == nil {
			return errNotServed
		}
		h.ServeHTTP(w, r)
		return nil
	}
}

func writeJSON(w http.ResponseWriter, doc any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(doc)
}
