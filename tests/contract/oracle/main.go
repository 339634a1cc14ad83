// The other implementation of ttRPC, containerd's, for the tests in the folder above.
//
//	oracle client SOCKET    makes the calls that it reads from standard input
//	oracle server SOCKET    serves oracle.Test until its standard input ends
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: oracle client|server SOCKET"))
	}
	var err error
	switch os.Args[1] {
	case "client":
		err = client(os.Args[2])
	case "server":
		err = server(os.Args[2])
	default:
		err = fmt.Errorf("unknown role %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "oracle:", err)
	os.Exit(1)
}
