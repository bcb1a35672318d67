//go:build !unix

package main

// maxDescriptors is 0 where they are not limited.
func maxDescriptors() int { return 0 }
