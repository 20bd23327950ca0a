package gc

import (
	"cmp"
	"slices"
	"time"
)

// Image is one image with all its names; removing the last of them frees it.
type Image struct {
	ID    string
	Names []string
	// Size in bytes is what a registry says, not what the disk will gain.
	Size int64
	// Created is when it was last pulled or imported.
	Created time.Time
	// Keep says that it must stay whether it is used or not.
	Keep bool
}

// Policy says what is removed.
type Policy struct {
	// High and Low are percentages of the file system: above High images are
	// removed until Low is reached. A High of 100 never removes any.
	High, Low int
	// MinAge is how long an image stays in any case; MaxAge is how long one
	// stays that is not used, 0 is for ever.
	MinAge, MaxAge time.Duration
}

// Disk is a file system, in bytes.
type Disk struct{ Capacity, Available uint64 }

// Used is the percentage that is used.
func (d Disk) Used() int {
	if d.Capacity == 0 {
		return 0
	}
	return 100 - int(min(d.Available, d.Capacity)*100/d.Capacity)
}

// Excess is how many bytes must be freed to reach percent.
func (d Disk) Excess(percent int) uint64 {
	wanted := d.Capacity / 100 * uint64(100-percent)
	return wanted - min(wanted, d.Available)
}

// Full says whether images must make room.
func (p Policy) Full(d Disk) bool { return p.High < 100 && d.Used() >= p.High }

// Idle says that no disk could be so full that anything would be removed.
func (p Policy) Idle() bool { return p.High >= 100 && p.MaxAge == 0 }

// Usage is what is known of who uses images.
type Usage struct {
	// Now are names and IDs in use.
	Now map[string]bool
	// Last is when a name or an ID was last seen in use, Since when that began to
	// be looked at.
	Last  map[string]time.Time
	Since time.Time
}

// lastUsed is the newest time at which an image is known to have been of use.
// Having been fetched is one: it was wanted then.
func (u *Usage) lastUsed(i *Image) time.Time {
	last := i.Created
	for _, key := range append([]string{i.ID}, i.Names...) {
		if t := u.Last[key]; t.After(last) {
			last = t
		}
	}
	return last
}

func (u *Usage) inUse(i *Image) bool {
	return u.Now[i.ID] || slices.ContainsFunc(i.Names, func(name string) bool { return u.Now[name] })
}

// Removable are the images that may go, least recently used first.
func Removable(images []Image, u Usage, p Policy, now time.Time) []Image {
	var out []Image
	for i := range images {
		if !images[i].Keep && !u.inUse(&images[i]) && now.Sub(images[i].Created) >= p.MinAge {
			out = append(out, images[i])
		}
	}
	slices.SortStableFunc(out, func(a, b Image) int {
		return cmp.Or(u.lastUsed(&a).Compare(u.lastUsed(&b)), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Expired are those of the removable images that nobody has used for the
// maximum age. Before an age is known to have passed no image has it.
func Expired(removable []Image, u Usage, p Policy, now time.Time) []Image {
	var out []Image
	for i := range removable {
		unused := now.Sub(u.lastUsed(&removable[i]))
		if p.MaxAge > 0 && min(unused, now.Sub(u.Since)) > p.MaxAge {
			out = append(out, removable[i])
		}
	}
	return out
}
