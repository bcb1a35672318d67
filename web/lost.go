package web

import (
	"io"

	"lastevent/stream"
)

// lost is the source of a subscription that begins while the store cannot be reached.
// The client gets a reconnection time and is cut: any other status than 200 would stop
// an EventSource for good.
type lost struct{}

func (lost) Begin() []byte                          { return nil }
func (lost) BeginCut() []byte                       { return nil }
func (lost) Next() ([]byte, <-chan struct{}, error) { return nil, nil, io.ErrUnexpectedEOF }
func (lost) Behind() bool                           { return false }
func (lost) Idle() []byte                           { return nil }
func (lost) Finished() bool                         { return false }
func (lost) Figures() stream.Figures                { return stream.Figures{} }
func (lost) Close()                                 {}
