// Prints random numbers from each source that Go has: the kernel's, the seeded generator's, and the hash seed's.
package main

import (
	crypto "crypto/rand"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"math/rand"
)

func main() {
	bytes := make([]byte, 16)
	if _, err := crypto.Read(bytes); err != nil {
		panic(err)
	}
	fmt.Println(hex.EncodeToString(bytes), rand.Uint64(), maphash.String(maphash.MakeSeed(), "text"))
}
