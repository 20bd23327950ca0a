// Command dist packs one architecture's binaries into what users install: an
// archive, a Debian package and a bill of materials. It compiles nothing; see
// hack/dist.sh for who does, and for how all of it is reproducible.
//
//	agent, .cache/bin, .cache/cni ─┐
//	manifests, LICENSE, CHANGELOG ─┼─► tree ─┬─► archive (below /usr/local)
//	licences of the modules used ──┘         └─► Debian package (below /usr)
//	build information of the binaries ─► CycloneDX
package main
