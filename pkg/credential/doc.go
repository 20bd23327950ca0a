// Package credential asks programs of this machine for what registries want to
// know of a puller.
//
// It speaks the protocol of the kubelet's image credential providers: a program
// reads a CredentialProviderRequest and writes a CredentialProviderResponse. It owns
// the answers, as long as they say that they hold, and keeps them in memory only. It
// never runs a program that the configuration does not name, nor one for an image
// that the configuration does not give to it.
//
//	Load ─► the configuration, checked ─► Providers
//	Credentials(image) ─► programs whose matchImages match ─► cache ─► or run one
package credential
