// Package volume makes the volumes of a pod appear on the node, and takes them
// away again.
//
// It owns RootDir/pods/<uid>/volumes and volume-subpaths. It promises that every
// verb can be repeated, that contents are replaced whole, and that nothing
// outside the pod's directory is ever removed: what is mounted there is
// unmounted, never deleted. It never follows a link that a pod could have put
// into a volume.
//
//	Setup ─► one func per kind ─► RootDir/pods/<uid>/volumes/kubernetes.io~<kind>/<name>
//	Update ─► the contents of configMap, secret, downwardAPI and projected
//	Limits ─► measure emptyDirs on disk ─► evict
//	Teardown ─► unmount unnoticed by the host, remove up to the next mount
package volume
