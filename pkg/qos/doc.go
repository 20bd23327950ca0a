// Package qos keeps the cgroup hierarchy that enforces what pods were promised.
//
// It owns every cgroup from kubepods down to the pods, with the kubelet's names
// and values, through systemd or cgroupfs, on cgroup v1 and v2. It promises that
// its verbs can be repeated, that nothing outside kubepods is ever touched, and
// that values are computed apart from writing them. It never learns what a
// container runtime is: containers are processes below a pod's cgroup.
//
//	<cgroupRoot>/kubepods                 node level: allocatable
//	             ├── pod<uid>             Guaranteed
//	             ├── burstable            weight: what its pods request
//	             │   └── pod<uid>
//	             └── besteffort           weight 1
//	                 └── pod<uid>
//
// A pod's spec becomes Resources, Resources become a list of settings, and a
// driver writes that list without a decision of its own:
//
//	resources.go ─► settings.go ─► cgroupfs.go
//	                           └─► systemd.go   (unit properties; files for the rest)
package qos
