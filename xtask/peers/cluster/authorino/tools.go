//go:build tools

// Package authorino pins the Authorino that the test cluster runs.
package authorino

import _ "github.com/kuadrant/authorino"
