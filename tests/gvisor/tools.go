//go:build tools

// Package tools names the programs that tests build, so that go.mod and go.sum pin them and all that they are made of.
package tools

import (
	_ "gvisor.dev/gvisor/runsc"
	_ "gvisor.dev/gvisor/shim"
)
