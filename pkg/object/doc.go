// Package object knows the API objects that this node's pods refer to.
//
// It owns KeepDir and nothing else on the machine: it keeps in memory what the API server last said
// of the config maps, secrets, services and trust bundles that the pods of this
// node name, and asks for tokens and claims when they are wanted. It promises to
// ask for nothing that a node may not read, to hold no watch that no pod needs, and
// never to take silence, a refusal or an error for the deletion of an object: what
// was known last is what is served. It never looks at pods that are not the API
// server's.
//
//	SetPods ─► references of each pod ─► one watch per object, shared by its pods
//	ConfigMap, Secret, Services, TrustBundle ◄─ the newest state, or why there is none
//	Token, Claim, PersistentVolume, NodeLabels ─► one request
//	KeepDir ◄─► the newest state, for an agent that starts while the API server is away
//	a change, or a token that grows old ─► Wake(uid)
package object
