// SPDX-License-Identifier: Apache-2.0

// Command etcd is the etcd server. Its own main package sits at the root of a module that cannot be required
// beside the modules of its parts, so this one calls the same entry point.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
