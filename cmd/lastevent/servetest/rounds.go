package servetest

// Rounds is how often a test does what it repeats: short times as a rule, and
// long times with -tags long.
func Rounds(short, long int) int {
	if Long {
		return long
	}
	return short
}
