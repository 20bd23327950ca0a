// Package podsource says which pods this machine is to run. It owns the way from
// bytes in a manifest directory to complete pods: decoded strictly, defaulted and
// checked as an API server would have done, with an identity that survives
// restarts of the agent.
//
// It promises that a source reports its full list every time; that a file is
// taken whole or not at all; that a file which broke keeps the pods it had; that
// every problem names its file and line; and that nothing found in the directory,
// be it a FIFO, a bomb or half a file, stops the other files from being read. It
// never talks to a runtime and never waits for anyone but its consumer.
//
//	inotify ──hint──┐
//	timer ───rescan─┴─► Dir: list, read what changed ─► ParseFile ─► Emit (full list)
//	                                                       │
//	   documents ─► nodes with lines ─► strict decode ─► Default ─► Validate ─► identity
package podsource
