#!/usr/bin/env bash
# The usual Go reader of Kubernetes manifests takes fields in any case, the API server does not.
#
# Expected: sigs.k8s.io/yaml, with which most Go tools read manifests, reads them as the API server does;
#   UnmarshalStrict refuses fields that do not exist.
# Really: it decodes with encoding/json, which takes `podselector` for podSelector, also when it is strict.
#   The API server's decoder (k8s.io/apimachinery) distinguishes case: to it `podselector` is no field.
#   Strict, it refuses the manifest; otherwise, which is what a client gets that does not ask for strict
#   field validation, it drops the field, and a NetworkPolicy without podSelector selects every pod of its
#   namespace. So a tool that checked a manifest in a pipeline checked another policy than the cluster
#   has. A field misspelt otherwise, `podSelectors`, is refused by both when they are strict.
# Seen: sigs.k8s.io/yaml v1.6.0, k8s.io/api and k8s.io/apimachinery v0.37.2.
# Since: the API server distinguishes case since Kubernetes 1.11 (kubernetes/kubernetes#65034, and had
#   done so before 1.8); the same for sigs.k8s.io/yaml was proposed and put off (kubernetes-sigs/yaml#17).
# For Ringfence: it has a reader of its own for the Kubernetes objects that it is given as files. Names of
#   fields are compared exactly, and an unknown field is an error with file, line and column: it reads no
#   manifest in a way in which the API server would not.
#
# Needs: Go 1.26 or later with access to its module proxy.
# Exit status: 0 as described, 1 the behaviour has changed, 2 cannot run.
set -euo pipefail

cannot() { echo "cannot run: $*" >&2; exit 2; }
command -v go >/dev/null || cannot "needs Go"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOPATH="$work/go" GOFLAGS="-mod=mod -modcacherw -trimpath"
mkdir "$work/src"
cd "$work/src"
cat >go.mod <<'MOD'
module finding

go 1.26.0

require (
	k8s.io/api v0.37.2
	k8s.io/apimachinery v0.37.2
	sigs.k8s.io/yaml v1.6.0
)
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"runtime/debug"

	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"
)

const manifest = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: database, namespace: shop}
spec:
  %s: {matchLabels: {app: database}}
  policyTypes: [Ingress]
`

type reader struct {
	name string
	read read
}

type read = func([]byte) (*networking.NetworkPolicy, error)

func library(decode func([]byte, any) error) read {
	return func(text []byte) (*networking.NetworkPolicy, error) {
		policy := new(networking.NetworkPolicy)
		return policy, decode(text, policy)
	}
}

// As the API server decodes the body of a request; strict if it was asked to validate fields strictly.
func server(options ...serializer.CodecFactoryOptionsMutator) read {
	scheme := runtime.NewScheme()
	if err := networking.AddToScheme(scheme); err != nil {
		panic(err)
	}
	decoder := serializer.NewCodecFactory(scheme, options...).UniversalDeserializer()
	return func(text []byte) (*networking.NetworkPolicy, error) {
		object, _, err := decoder.Decode(text, nil, nil)
		policy, _ := object.(*networking.NetworkPolicy)
		return policy, err
	}
}

func meaning(policy *networking.NetworkPolicy, err error) string {
	switch {
	case err != nil:
		return "refused"
	case len(policy.Spec.PodSelector.MatchLabels) == 0:
		return "every pod"
	default:
		return fmt.Sprint(policy.Spec.PodSelector.MatchLabels)
	}
}

func main() {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			switch module.Path {
			case "k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/yaml":
				fmt.Println(module.Path, module.Version)
			}
		}
	}
	readers := []reader{
		{"yaml.Unmarshal", library(func(text []byte, into any) error {
			return yaml.Unmarshal(text, into)
		})},
		{"yaml.UnmarshalStrict", library(func(text []byte, into any) error {
			return yaml.UnmarshalStrict(text, into)
		})},
		{"API server's decoder", server()},
		{"API server's, strict", server(serializer.EnableStrict)},
	}
	const database = "map[app:database]"
	wanted := []struct {
		field string
		means [4]string
	}{
		{"podSelector", [4]string{database, database, database, database}},
		{"podSelectors", [4]string{"every pod", "refused", "every pod", "refused"}},
		{"podselector", [4]string{database, database, "every pod", "refused"}},
	}
	same := true
	for _, row := range wanted {
		for i, reader := range readers {
			policy, err := reader.read(fmt.Appendf(nil, manifest, row.field))
			got := meaning(policy, err)
			fmt.Printf("%-14s %-22s selects: %s\n", row.field+":", reader.name, got)
			if err != nil {
				fmt.Printf("%-14s %-22s   %v\n", "", "", err)
			}
			same = same && got == row.means[i]
		}
	}
	if !same {
		fmt.Println("changed: one of the readers means something else")
		os.Exit(1)
	}
	fmt.Println("as described: `podselector` is podSelector to one reader and nothing to the other")
}
GO
go build -o "$work/finding" . || cannot "the build failed"
"$work/finding"
