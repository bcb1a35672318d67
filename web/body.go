package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// bodyTimeout is how long any body may take. A server that gives requests less
	// has its way for those that bring little.
	bodyTimeout = time.Minute
	// bodyRate is how many bytes give it a second more.
	bodyRate = 4 << 10
	// bodyStep is by how much more at once.
	bodyStep = 10 * time.Second
	// answerTimeout is how long the answer may take after the body.
	answerTimeout = time.Minute
)

// A pacedBody is a request's body that may be slow, but not stop or drip.
type pacedBody struct {
	io.Reader
	control *http.ResponseController
	begun   time.Time
	bytes   int
	more    time.Duration // than bodyTimeout
}

func newPacedBody(w http.ResponseWriter, body io.Reader) *pacedBody {
	return &pacedBody{Reader: body, control: http.NewResponseController(w), begun: time.Now()}
}

func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.bytes += n
	if more := time.Duration(b.bytes/bodyRate) * time.Second; more >= b.more+bodyStep {
		b.more = more
		due := b.begun.Add(bodyTimeout + more)
		// A connection that refuses these keeps what the server gives it.
		_ = b.control.SetReadDeadline(due)
		_ = b.control.SetWriteDeadline(due.Add(answerTimeout))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = b.control.SetWriteDeadline(time.Now().Add(answerTimeout))
		err = &refusal{http.StatusRequestTimeout, fmt.Sprintf(
			"the body came too slowly: after the first minute, %d bytes must have come for each second; nothing was stored", bodyRate)}
	}
	return n, err
}
