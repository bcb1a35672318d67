package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"lastevent/cmd/lastevent/internal/selfsigned"
)

// A certificate that was renewed is in use before long; one that cannot be read is not.
func TestCertificateIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		write := func() {
			t.Helper()
			if err := selfsigned.Write(certFile, keyFile); err != nil {
				t.Fatal(err)
			}
		}
		write()
		c, err := loadCertificate(certFile, keyFile, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		get := func() []byte {
			t.Helper()
			time.Sleep(checkEvery)
			got, err := c.get(nil)
			if err != nil {
				t.Fatal(err)
			}
			return got.Certificate[0]
		}
		first := get()
		write()
		second := get()
		if bytes.Equal(first, second) {
			t.Error("the first is still in use")
		}
		if err := os.WriteFile(certFile, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(get(), second) {
			t.Error("the second is no longer in use")
		}
		write()
		third := get()
		if bytes.Equal(third, second) {
			t.Error("the second is still in use")
		}
		// As tools do that keep the times of what they copy.
		info, err := os.Stat(keyFile)
		if err != nil {
			t.Fatal(err)
		}
		write()
		if err := errors.Join(os.Chtimes(certFile, info.ModTime(), info.ModTime()), os.Chtimes(keyFile, info.ModTime(), info.ModTime())); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(get(), third) {
			t.Error("the third is still in use, as the files' times are those of before")
		}
	})
}
