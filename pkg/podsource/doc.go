// Package podsource says which pods should run: it reads the manifest directory
// and tells the full list of what it holds, each time something has changed.
//
// It owns the way from bytes to a pod that is ready to run: strict decoding, the
// defaults an API server would have filled in, the checks it would have made, and
// an identity that is the same after every restart. It promises that a file that
// breaks changes nothing, and that no content of the directory can stop it. It
// knows no consumer and never touches a pod.
//
//	files ─► ParseFile (decode, Default, Validate, identity) ─► Dir ─► Update
package podsource
