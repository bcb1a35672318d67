package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lastevent/web/access"
)

// tokenFlags are the flags of token.
type tokenFlags struct {
	secretFile, keyFile string
	publish, subscribe  []string
	expires             time.Duration
	issuer, audience    string
}

func tokenCommand() *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token that a server takes",
		Long: "Make a token (JWT) that a server takes, as to try it out; your own programs can make\n" +
			"the same with any library.\n\n" +
			"    openssl rand -hex 32 >secret\n" +
			"    lastevent serve --jwt-secret-file secret\n" +
			"    lastevent token --secret-file secret --publish 'rooms/*' --subscribe '**'\n\n" +
			"Patterns are names of streams. In them * stands for one segment, and ** at the end for\n" +
			"one or more: rooms/* is rooms/7, and rooms/** is rooms/7/chat too.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := f.mint()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.secretFile, "secret-file", "", "`file` with the server's secret (--jwt-secret-file)")
	flags.StringVar(&f.keyFile, "key-file", "", "`file` with a private key in PEM, of the server's public one (--jwt-key-file), as from openssl genpkey -algorithm ed25519")
	flags.StringArrayVar(&f.publish, "publish", nil, "`pattern` of streams that can be published to, closed and deleted; repeatable")
	flags.StringArrayVar(&f.subscribe, "subscribe", nil, "`pattern` of streams that can be subscribed to, read and listed; repeatable")
	flags.DurationVar(&f.expires, "expires", time.Hour, "how long it is valid; then it cuts its subscriptions")
	flags.StringVar(&f.issuer, "issuer", "", "the `name` that the server wants (--jwt-issuer)")
	flags.StringVar(&f.audience, "audience", "", "the `name` that the server wants (--jwt-audience)")
	return cmd
}

func (f *tokenFlags) mint() (string, error) {
	if len(f.publish)+len(f.subscribe) == 0 {
		return "", errors.New("the token would allow nothing: give --publish or --subscribe with a pattern of streams")
	}
	for flag, patterns := range map[string][]string{"--publish": f.publish, "--subscribe": f.subscribe} {
		for _, p := range patterns {
			if err := access.CheckPattern(p); err != nil {
				return "", fmt.Errorf("%s: %w", flag, err)
			}
		}
	}
	if f.expires < time.Second {
		return "", fmt.Errorf("--expires must be at least 1s, and is %v", f.expires)
	}
	key, err := f.key()
	if err != nil {
		return "", err
	}
	grants := access.Grants{Publish: f.publish, Subscribe: f.subscribe, Until: time.Now().Add(f.expires)}
	return access.Mint(key, grants, f.issuer, f.audience)
}

func (f *tokenFlags) key() (key access.Key, err error) {
	switch {
	case (f.secretFile == "") == (f.keyFile == ""):
		return key, errors.New("give either --secret-file or --key-file, to sign the token with")
	case f.secretFile != "":
		if key, err = access.ReadSecret(f.secretFile); err != nil {
			return key, fmt.Errorf("--secret-file: %w", err)
		}
	default:
		if key, err = access.ReadPrivateKey(f.keyFile); err != nil {
			return key, fmt.Errorf("--key-file: %w", err)
		}
	}
	return key, nil
}
