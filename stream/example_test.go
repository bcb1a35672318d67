package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
)

// A client that had event 2 gets event 3, and then waits for more.
func Example() {
	dir, err := os.MkdirTemp("", "stream")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(filepath.Join(dir, "events.db"), store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	set := stream.NewSet(db.Log, db.Streams)

	ctx := context.Background()
	say := func(words ...string) {
		var batch store.Batch
		for _, word := range words {
			batch.Events = append(batch.Events, store.Event{Type: "word", Data: []byte(word)})
		}
		if _, err := set.Log("words").Append(ctx, batch); err != nil {
			log.Fatal(err)
		}
	}
	say("one", "two", "three")

	had := "2"
	cursor, err := set.Subscribe(ctx, "words", stream.Subscription{Start: stream.Start{LastEventID: &had}, Limit: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer cursor.Close()
	show(cursor.Begin())
	for {
		p, changed, err := cursor.Next()
		if err == io.EOF { // here, as the limit is reached
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		show(p)
		if len(p) == 0 {
			go say("four")
			<-changed
		}
	}
	// Output:
	// position after 2
	// word 3: three
	// word 4: four
}

// show prints what goes over the wire.
func show(p []byte) {
	for r := sse.NewReader(bytes.NewReader(p), len(p)+1); ; {
		m, err := r.Next()
		switch {
		case err != nil:
			return
		case m.Type == stream.TypePosition:
			fmt.Println("position after", m.ID)
		default:
			fmt.Printf("%s %s: %s\n", m.Type, m.ID, m.Data)
		}
	}
}
