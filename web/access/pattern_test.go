package access_test

import (
	"regexp"
	"strings"
	"testing"

	"lastevent/web/access"
)

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		pattern    string
		names, not string // separated by spaces
	}{
		{"**", "a a/b a/b/c", ""},
		{"*", "a b.c", "a/b"},
		{"rooms", "rooms", "rooms/1 room roomsx Rooms"},
		{"rooms/*", "rooms/1 rooms/~", "rooms rooms/1/chat xrooms/1"},
		{"rooms/**", "rooms/1 rooms/1/chat rooms/1/2/3", "rooms roomsx/1 room/1"},
		{"rooms/*/chat", "rooms/1/chat", "rooms/chat rooms/1/2/chat rooms/1/chat/2 rooms/1/chatter"},
		{"*/b/**", "a/b/c a/b/c/d", "a/b b/c a/c/b"},
		{"*/*", "a/b", "a a/b/c"},
	} {
		if err := access.CheckPattern(test.pattern); err != nil {
			t.Error(err)
		}
		p := access.Patterns{test.pattern}
		for _, name := range strings.Fields(test.names) {
			if !p.Match(name) {
				t.Errorf("%s does not match %s", test.pattern, name)
			}
		}
		for _, name := range strings.Fields(test.not) {
			if p.Match(name) {
				t.Errorf("%s matches %s", test.pattern, name)
			}
		}
	}
	if access.Patterns(nil).Match("a") {
		t.Error("none match")
	}
	if !(access.Patterns{"x", "a/*"}).Match("a/b") {
		t.Error("the second does not match")
	}
}

var badPatterns = []string{
	"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "**/a", "a/**/b", "**/**", "***", "a*", "*a", "a/b*", "r**", "a/x**",
	"a b", "a%2fb", "é", "a\x00", "?", "[a]", "{a,b}", strings.Repeat("a", 256),
}

func TestMalformedPatterns(t *testing.T) {
	for _, p := range badPatterns {
		if access.CheckPattern(p) == nil {
			t.Errorf("%q is taken", p)
		}
		for _, name := range []string{"a", "a/b", "a/x/b", p} {
			if (access.Patterns{p}).Match(name) {
				t.Errorf("%q matches %s", p, name)
			}
		}
	}
}

// A pattern is what a regular expression says that it is.
func FuzzPattern(f *testing.F) {
	for _, p := range append(badPatterns, "**", "*", "rooms/*", "rooms/**", "a/*/c") {
		f.Add(p, "rooms/1")
		f.Add(p, "a/b/c")
	}
	const segment = `[A-Za-z0-9._~-]+`
	valid := regexp.MustCompile(`^(` + segment + `|\*)(/(` + segment + `|\*))*(/\*\*)?$|^\*\*$`)
	dots := regexp.MustCompile(`(^|/)\.\.?(/|$)`)
	name := regexp.MustCompile(`^` + segment + `(/` + segment + `)*$`)
	f.Fuzz(func(t *testing.T, pattern, stream string) {
		ok := valid.MatchString(pattern) && !dots.MatchString(pattern) && len(pattern) <= 255
		if err := access.CheckPattern(pattern); (err == nil) != ok {
			t.Fatalf("CheckPattern(%q): %v", pattern, err)
		}
		if !name.MatchString(stream) {
			return
		}
		want := false
		if ok {
			means := strings.NewReplacer(".", `\.`, "**", segment+"(/"+segment+")*", "*", segment).Replace(pattern)
			want = regexp.MustCompile("^" + means + "$").MatchString(stream)
		}
		if got := (access.Patterns{pattern}).Match(stream); got != want {
			t.Fatalf("%q and %q match: %v", pattern, stream, got)
		}
	})
}
