package web

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"lastevent/store"
)

// backupBlock is how much of a backup a client has writeTimeout to take.
const backupBlock = 1 << 20

// errBackupUnderWay: each backup takes as much disk space as the file has.
var errBackupUnderWay = &refusal{http.StatusTooManyRequests, "a backup is being taken already; wait for its end"}

// backup answers with a copy of the file, which shows everything that is stored.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	if err := mayBackUp(r); err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		h.Set("Content-Type", "application/octet-stream")
		return
	}
	if !s.backingUp.CompareAndSwap(false, true) {
		h.Set("Retry-After", "10")
		s.fail(w, r, errBackupUnderWay)
		return
	}
	defer s.backingUp.Store(false)
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // making the copy takes as long as the disk does
	started := time.Now()
	backup, size, err := s.config.Backup(r.Context())
	if err != nil {
		if errors.Is(err, store.ErrNoSpace) {
			s.config.Log.Error().Err(err).Msg("no backup")
			err = &refusal{http.StatusInsufficientStorage, "a backup takes as much space as the file has, beside it, and there is not so much"}
		}
		s.fail(w, r, err)
		return
	}
	defer backup.Close()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="lastevent-backup.db"`)
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	for left := size; left > 0; left -= backupBlock {
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := io.CopyN(w, backup, min(left, backupBlock)); err != nil {
			s.config.Log.Warn().Err(err).Str("addr", r.RemoteAddr).Msg("a backup was cut")
			panic(http.ErrAbortHandler)
		}
	}
	s.config.Log.Info().Str("addr", r.RemoteAddr).Int64("bytes", size).Dur("took", time.Since(started)).Msg("backup taken")
}

// mayBackUp refuses requests of pages of other origins.
func mayBackUp(r *http.Request) error {
	asked := r.Clone(r.Context())
	asked.Method = http.MethodPost // reading is as unsafe here as writing elsewhere
	if http.NewCrossOriginProtection().Check(asked) != nil {
		return &refusal{http.StatusForbidden, "pages of another origin must not take backups"}
	}
	return nil
}
