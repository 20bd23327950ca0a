// Package config is what a user can set: the kubelet's own configuration file,
// and a second document in it for what is ours.
//
// It reads strictly, fills in the kubelet's defaults and finds every problem at
// once. It never looks at the machine, and it never guesses what an unknown
// field may have meant.
//
//	file ─► Load (strict, on top of Default) ─► Validate ─► Config
package config
