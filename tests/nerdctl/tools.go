//go:build tools

// Package tools names the program that tests build, so that go.mod and go.sum pin it and all that it is made of.
package tools

import (
	_ "github.com/containerd/nerdctl/v2/cmd/nerdctl"
)
