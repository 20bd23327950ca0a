// Package readme follows the README as a new user would: it takes the commands of
// the first five minutes out of the file and runs them on this machine. It knows
// what each should show, and fails on a command that it does not know.
//
//	README.md ─► commands ─► terminal ─► what the user sees
package readme
