package main

import (
	"io/fs"
	"testing/fstest"
)

// memory is a tree of files in memory.
func memory(files map[string][]byte) fs.FS {
	out := fstest.MapFS{}
	for name, b := range files {
		out[name] = &fstest.MapFile{Data: b}
	}
	return out
}
