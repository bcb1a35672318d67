//go:build !unix || solaris || aix

package main

import (
	"io/fs"
	"net"
)

// listenUnix leaves the socket's permissions to the folder that it is in.
func listenUnix(path string, _ fs.FileMode) (net.Listener, error) { return net.Listen("unix", path) }
