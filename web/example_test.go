package web_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
	"lastevent/web"
)

// A program of one's own serves streams beside what else it serves.
func Example() {
	dir, err := os.MkdirTemp("", "web")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	db, err := store.Open(filepath.Join(dir, "events.db"), store.Options{Retention: store.Retention{Events: 100_000}})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	server, err := web.New(web.Config{Streams: stream.NewSet(db.Log, db.Streams), Ready: db.Err})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Drain(context.Background())

	mux := http.NewServeMux()
	mux.Handle("/sse/", server)
	site := httptest.NewServer(mux) // or http.ListenAndServe("localhost:8080", mux)
	defer site.Close()

	for _, order := range []string{"apples", "pears"} {
		answer, err := http.Post(site.URL+"/sse/orders?event=order", "text/plain", strings.NewReader(order))
		if err != nil {
			log.Fatal(err)
		}
		answer.Body.Close()
		fmt.Println(answer.Status)
	}
	follow(site.URL+"/sse/orders", "1", 1)
	// Output:
	// 201 Created
	// 201 Created
	// order 2: pears
}

// The tokens of an answer go to a stream of its own, whoever reads it. A page that is
// reloaded, or a phone that was in a tunnel, goes on where it was, and the answer is
// worked out once.
func Example_tokens() {
	dir, err := os.MkdirTemp("", "web")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(filepath.Join(dir, "answers.db"), store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	streams := stream.NewSet(db.Log, db.Streams)
	server, err := web.New(web.Config{Streams: streams, Ready: db.Err})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Drain(context.Background())

	answer := func(ctx context.Context, question, id string, model func(question string) []string) error {
		answers := streams.Log("answers/" + id)
		for _, token := range model(question) {
			event := store.Event{Type: "token", Data: []byte(token)}
			if _, err := answers.Append(ctx, store.Batch{Events: []store.Event{event}}); err != nil {
				return err
			}
		}
		_, err := answers.Append(ctx, store.Batch{Close: true}) // readers get "end"
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /sse/answers/", server)
	mux.HandleFunc("POST /ask", func(w http.ResponseWriter, r *http.Request) {
		question, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
		if err != nil {
			http.Error(w, "the question cannot be read", http.StatusBadRequest)
			return
		}
		id := "17" // one that nobody can guess
		go func() {
			model := func(string) []string { return []string{"It", "is", "."} }
			if err := answer(context.WithoutCancel(r.Context()), string(question), id, model); err != nil {
				log.Print("answering: ", err)
			}
		}()
		http.Redirect(w, r, "/sse/answers/"+id+"?from=earliest", http.StatusSeeOther)
	})
	site := httptest.NewServer(mux)
	defer site.Close()

	asked, err := http.Post(site.URL+"/ask", "text/plain", strings.NewReader("Is it durable?"))
	if err != nil {
		log.Fatal(err)
	}
	show(asked.Body, 1)
	asked.Body.Close() // the connection is lost
	follow(site.URL+"/sse/answers/17", "1", 3)
	// Output:
	// token 1: It
	// token 2: is
	// token 3: .
	// end 3: {"last":3}
}

// What an MCP server tells its client unasked, such as how far a tool has come, goes to
// a stream a session (Model Context Protocol, transport "Streamable HTTP"). A client whose
// connection broke sends its GET again, with Last-Event-ID, and misses nothing.
func Example_mcp() {
	dir, err := os.MkdirTemp("", "web")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(filepath.Join(dir, "sessions.db"), store.Options{Retention: store.Retention{Age: time.Hour}})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	streams := stream.NewSet(db.Log, db.Streams)
	server, err := web.New(web.Config{Streams: streams, Ready: db.Err})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Drain(context.Background())

	notify := func(ctx context.Context, session, message string) error {
		event := store.Event{Type: "message", Data: []byte(message)}
		_, err := streams.Log("mcp/"+session).Append(ctx, store.Batch{Events: []store.Event{event}})
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mcp", func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = "/sse/mcp/"+r.Header.Get("Mcp-Session-Id"), ""
		r.URL.RawQuery = "from=earliest" // where there is no Last-Event-ID
		server.ServeHTTP(w, r)
	})
	mux.HandleFunc("POST /mcp", func(w http.ResponseWriter, r *http.Request) {
		for step := 1; step <= 3; step++ { // the tool at work
			progress := fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":%d}}`, step)
			if err := notify(r.Context(), r.Header.Get("Mcp-Session-Id"), progress); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}`)
	})
	site := httptest.NewServer(mux)
	defer site.Close()

	call, err := http.NewRequest(http.MethodPost, site.URL+"/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call"}`))
	if err != nil {
		log.Fatal(err)
	}
	call.Header.Set("Mcp-Session-Id", "s1")
	result, err := http.DefaultClient.Do(call)
	if err != nil {
		log.Fatal(err)
	}
	result.Body.Close()
	follow(site.URL+"/mcp", "2", 1, "Mcp-Session-Id", "s1")
	// Output:
	// message 3: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":3}}
}

// follow resumes after an ID, and shows what comes. The headers are pairs.
func follow(url, lastEventID string, events int, header ...string) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("Last-Event-ID", lastEventID)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	show(response.Body, events)
}

// show prints so many events, the position not among them.
func show(body io.Reader, events int) {
	for in := sse.NewReader(body, 1<<20); events > 0; {
		m, err := in.Next()
		if err != nil {
			log.Fatal(err)
		}
		if m.Type != stream.TypePosition {
			fmt.Printf("%s %s: %s\n", m.Type, m.ID, m.Data)
			events--
		}
	}
}
