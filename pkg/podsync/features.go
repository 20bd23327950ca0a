package podsync

// DeclaredFeatures are those of Kubernetes that pods may count on here and that
// not every node has, by the names under which a node declares them.
func DeclaredFeatures() []string {
	return []string{
		"InPlacePodLevelResourcesVerticalScaling",
		"InPlacePodVerticalScalingInitContainers",
		"RestartAllContainersOnContainerExits",
	}
}
