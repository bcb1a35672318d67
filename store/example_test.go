package store_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"lastevent/store"
)

// Events are numbered from 1, and here only the newest three are kept.
func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(filepath.Join(dir, "events.db"), store.Options{Retention: store.Retention{Events: 3}})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	orders := db.Log("orders")
	ctx := context.Background()
	for _, data := range []string{"apples", "pears", "plums", "figs"} {
		receipt, err := orders.Append(ctx, store.Batch{Events: []store.Event{{Type: "order", Data: []byte(data)}}})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("durable:", receipt.Last)
	}

	bounds, err := orders.Read(ctx, 2, func(e store.Event) bool {
		fmt.Printf("%d %s %s\n", e.Seq, e.Type, e.Data)
		return true
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("retained: %d to %d\n", bounds.First, bounds.Last)
	// Output:
	// durable: 1
	// durable: 2
	// durable: 3
	// durable: 4
	// 3 order plums
	// 4 order figs
	// retained: 2 to 4
}

// Who does not know whether an append went through appends again, under the same key.
func ExampleLog_Append() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(filepath.Join(dir, "events.db"), store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	payment := store.Batch{
		Events: []store.Event{{Type: "paid", Data: []byte("12.50")}},
		Key:    "order 17",
		Digest: [32]byte{17}, // of what is asked for, so that a key used twice is found out
	}
	for range 2 {
		receipt, err := db.Log("payments").Append(context.Background(), payment)
		fmt.Println(receipt.Last, receipt.Replayed, err)
	}
	payment.Digest[0]++
	_, err = db.Log("payments").Append(context.Background(), payment)
	fmt.Println(errors.Is(err, store.ErrKeyReused))
	// Output:
	// 1 false <nil>
	// 1 true <nil>
	// true
}

// A follower is told of events as they become durable, whoever appended them.
func ExampleLog_Follow() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(filepath.Join(dir, "events.db"), store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := context.Background()
	told := make(chan uint64, 2)
	stop, err := db.Log("news").Follow(ctx, func(b store.Bounds, _ []store.Event) { told <- b.Last })
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	if _, err := db.Log("news").Append(ctx, store.Batch{Events: []store.Event{{Type: "message", Data: []byte("hello")}}}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("last:", <-told)
	fmt.Println("last:", <-told)
	// Output:
	// last: 0
	// last: 1
}
