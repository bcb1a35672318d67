package access

import (
	"fmt"
	"strings"
)

// maxPattern is how long the longest name of a stream is.
const maxPattern = 255

// CheckPattern says what is wrong with a pattern. It is a stream's name in which a
// segment can be *, which stands for any one segment, and the last one **, which stands
// for one or more.
func CheckPattern(pattern string) error {
	if len(pattern) > maxPattern {
		return fmt.Errorf("the pattern has %d bytes; at most %d are possible", len(pattern), maxPattern)
	}
	for rest, more := pattern, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch {
		case segment == "*" || segment == "**" && !more:
		case segment == "**":
			return fmt.Errorf("the pattern %q has ** before its last segment; only that can be **", pattern)
		case segment == "" || segment == "." || segment == "..":
			return fmt.Errorf("the pattern %q has the segment %q; empty ones, . and .. are not possible", pattern, segment)
		case strings.Contains(segment, "*"):
			return fmt.Errorf("the pattern %q has the segment %q; * stands for a whole segment, and ** for all that follow", pattern, segment)
		case strings.ContainsFunc(segment, notInName):
			return fmt.Errorf("the pattern %q has the segment %q; streams are named by A-Z a-z 0-9 . _ ~ - only", pattern, segment)
		}
	}
	return nil
}

func notInName(c rune) bool {
	return !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("._~-", c))
}

// match takes a valid pattern and a valid name.
func match(pattern, stream string) bool {
	for {
		p, patterns, moreInPattern := strings.Cut(pattern, "/")
		s, segments, moreInStream := strings.Cut(stream, "/")
		switch {
		case p == "**":
			return true
		case p != "*" && p != s || moreInPattern != moreInStream:
			return false
		case !moreInPattern:
			return true
		}
		pattern, stream = patterns, segments
	}
}
