// Package gc frees the disk of images that nobody needs.
//
// A pass looks at how full the file system of the images is, which costs one
// system call. Only when it is fuller than the high threshold, or when images
// have a maximum age, is the runtime asked what there is:
//
//	older than the maximum age, unused ──────────────► removed
//	above the high threshold: unused, least recently
//	used first, until the low threshold is reached ──► removed
//
// It promises to leave alone what a container or a wanted pod uses, what is
// pinned, and what could not be had again. It never decides who uses an image:
// that is told to it. What it remembers, when an image was last seen in use, is
// lost with the process, and then counts from its start.
package gc
