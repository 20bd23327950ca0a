package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// The part of CycloneDX 1.6 that we have something to say in.
type (
	billOfMaterials struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		PURL       string     `json:"purl,omitempty"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// bill lists each binary with what it is made of, as its build information says;
// what is C in it is named by the licences of C libraries.
func (r release) bill(binaries, libraries []file) ([]byte, error) {
	whole := component{Type: "application", Ref: r.name(), Name: "nodeagent", Version: r.Version}
	contents := dependency{Ref: whole.Ref}
	parts := map[string]component{}
	var all []component
	var dependencies []dependency
	for _, b := range binaries {
		info, err := buildInfo(b)
		if err != nil {
			return nil, err
		}
		made, of := r.program(b, info, libraries)
		needs := dependency{Ref: made.Ref}
		for _, p := range of {
			parts[p.Ref] = p
			needs.DependsOn = append(needs.DependsOn, p.Ref)
		}
		all = append(all, made)
		contents.DependsOn = append(contents.DependsOn, made.Ref)
		dependencies = append(dependencies, needs)
	}
	all = slices.AppendSeq(all, maps.Values(parts))
	slices.SortStableFunc(all, func(a, b component) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Ref, b.Ref)) // programs first
	})
	out, err := json.MarshalIndent(billOfMaterials{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata:   metadata{Timestamp: r.Time.Format("2006-01-02T15:04:05Z"), Component: whole},
		Components: all, Dependencies: append([]dependency{contents}, dependencies...),
	}, "", "  ")
	return append(out, '\n'), err
}

// program is a binary, and the parts that it is made of.
func (r release) program(b file, info *buildinfo.BuildInfo, libraries []file) (made component, of []component) {
	made = component{
		Type: "application", Ref: b.path, Name: path.Base(b.path), Version: r.Version,
		Hashes: []hash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(b.data))}},
	}
	if released(&info.Main) {
		made.Version = info.Main.Version
	}
	of = append(of, library("pkg:golang/std@"+strings.TrimPrefix(info.GoVersion, "go")))
	for _, m := range modules(info) {
		of = append(of, library("pkg:golang/"+m.Path+"@"+m.Version))
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOARCH", "GOOS", "-tags", "CGO_ENABLED":
			made.Properties = append(made.Properties, property{"go:" + strings.TrimPrefix(s.Key, "-"), s.Value})
		}
		if s.Key == "CGO_ENABLED" && s.Value == "1" {
			for _, l := range libraries {
				name, version, _ := strings.Cut(path.Base(l.path), "_")
				of = append(of, library("pkg:deb/debian/"+name+"@"+strings.ReplaceAll(version, "+", "%2B")))
			}
		}
	}
	return made, of
}

// library is a part that its package URL names.
func library(purl string) component {
	name, version, _ := strings.Cut(purl, "@")
	name = name[strings.Index(name, "/")+1:]
	return component{Type: "library", Ref: purl, Name: strings.TrimPrefix(name, "debian/"), Version: strings.ReplaceAll(version, "%2B", "+"), PURL: purl}
}
