// Package config is what a user can set: the kubelet's own configuration file,
// and a second document in it for what is ours.
//
// It promises that a field which does not exist stops the start and is named;
// that all problems of values are found at once; that what is left out has the
// kubelet's default, but for the few that config.go explains; and that a valid
// field without an effect is listed. It never looks at the machine, and it never
// guesses what an unknown field may have meant.
//
//	file ─► Load (strict; what is left out comes from Default) ─► Validate ─► Config
package config
