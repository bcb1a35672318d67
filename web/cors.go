package web

import (
	"net/http"
	"slices"
	"time"

	"github.com/rs/cors"
)

// allOrigins is the origin that stands for all.
const allOrigins = "*"

// preflightAge is for how long a browser need not ask again.
const preflightAge = 10 * time.Minute

// allowOrigins lets pages of the origins read what next answers.
func allowOrigins(origins []string, next http.Handler) http.Handler {
	return cors.New(cors.Options{
		AllowedOrigins:   origins,
		AllowedMethods:   []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete},
		AllowedHeaders:   []string{"Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID"},
		ExposedHeaders:   []string{"ETag", "Idempotency-Replayed", "Link", "Retry-After", "Stream-Closed", "Stream-First-Id", "Stream-Last-Id", "Stream-Log"},
		AllowCredentials: !slices.Contains(origins, allOrigins),
		MaxAge:           int(preflightAge.Seconds()),
	}).Handler(next)
}

// protectOrigin refuses requests that change something and come from pages of other
// origins than the server's own and these.
func protectOrigin(origins []string, next http.Handler) (http.Handler, error) {
	if slices.Contains(origins, allOrigins) {
		return next, nil
	}
	crossOrigin := http.NewCrossOriginProtection()
	for _, origin := range origins {
		if err := crossOrigin.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	crossOrigin.SetDenyHandler(problemHandler(http.StatusForbidden,
		&refusal{detail: "pages of another origin must not publish here"}))
	return crossOrigin.Handler(next), nil
}
