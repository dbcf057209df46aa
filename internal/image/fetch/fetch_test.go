package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const address = "http://images.example/disk.img?signature=secret"

// TestServers receives one file from servers of all kinds.
func TestServers(t *testing.T) {
	data := random(300_000)
	other := random(300_001)
	good := file(data, `"v1"`)
	stalling := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:100_000]) // the client ends this
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	wrongRange := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			good.ServeHTTP(w, r)
			return
		}
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(data)-1, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(data[5:]) // the client ends this
	})
	for _, tc := range []struct {
		name    string
		handler http.Handler
		want    []byte
		err     error
		says    string   // in the error
		log     []string // the ranges asked for
		notes   string   // in the notes
		least   time.Duration
	}{
		{name: "good", handler: good, want: data, log: []string{""}},
		{name: "cuts", handler: cutting(good, 70_000), want: data, notes: "after 70000 of 300000 bytes; trying again",
			log: []string{"", "bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-"}},
		{name: "cuts, only a date", want: data, handler: cutting(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(data))
		}), 200_000), log: []string{"", "bytes=200000-"}},
		{name: "cuts, no version", handler: sequence(cutting(file(data, ""), 200_000), file(data, "")), want: data, log: []string{"", ""}},
		{name: "cuts, a weak version", handler: sequence(cutting(file(data, `W/"1"`), 200_000), file(data, `W/"1"`)), want: data, log: []string{"", ""}},
		{name: "cuts, no ranges", handler: sequence(cutting(withoutRanges(good), 200_000), withoutRanges(good)), want: data, log: []string{"", "bytes=200000-"}},
		{name: "stalls", handler: sequence(stalling, good), want: data, log: []string{"", "bytes=100000-"},
			notes: "nothing was received for too long (30s): after 100000 of 300000 bytes", least: 30 * time.Second},
		{name: "stalls before the header", want: data, log: []string{"", ""}, least: 30 * time.Second,
			handler: sequence(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), good)},
		{name: "resumes wrongly", handler: sequence(cutting(good, 100_000), wrongRange, good), want: data,
			log: []string{"", "bytes=100000-", ""}, notes: `asked for what follows byte 100000, the server sent "bytes 5-299999/300000"`},
		{name: "changes between ranges", handler: sequence(cutting(good, 100_000), file(other, `"v2"`)), err: ErrChanged,
			says: "the file was changed on the server", log: []string{"", "bytes=100000-"}},
		{name: "changes and ignores If-Range", err: ErrChanged, handler: sequence(cutting(good, 100_000), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("If-Range")
			file(other, `"v2"`).ServeHTTP(w, r)
		}))},
		{name: "busy", handler: sequence(status(429, "Retry-After", "17"), status(503), good), want: data,
			notes: "429 Too Many Requests (try again in 17s); trying again in 17s", least: 17 * time.Second},
		{name: "busy until a date", handler: sequence(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusServiceUnavailable)
		}), good), want: data, least: 59 * time.Second},
		{name: "busy for hours", handler: status(429, "Retry-After", "7200"), says: "try again in 2h0m0s", log: []string{""}},
		{name: "always busy", handler: status(503), says: "503 Service Unavailable (6 times in a row)", log: make([]string, 6)},
		{name: "missing", handler: status(404), says: "404 Not Found", log: []string{""}},
		{name: "forbidden", handler: status(403), says: "403 Forbidden", log: []string{""}},
		{name: "login page", handler: page("<!DOCTYPE html><html><head><title>Sign in\n to GitHub</title>"), err: ErrNotFile,
			says: `something else than the file: a web page with the title "Sign in to GitHub"`},
		{name: "bare page", handler: page("<html>no"), err: ErrNotFile, says: "a web page"},
		{name: "text", handler: page("no such   image\n"), err: ErrNotFile, says: `a text that begins with "no such image"`},
		{name: "cuts for ever", handler: cutting(good, 1000), err: ErrCut, says: "after 6000 of 300000 bytes (6 times in a row)"},
		{name: "announces too much", err: ErrLength, says: "first 300000 bytes, now 200000",
			handler: sequence(announcing(data[:200_000], 300_000), file(data[:200_000], `"v1"`))},
		{name: "always announces too much", err: ErrCut, says: "of 300000 bytes (6 times in a row)", handler: announcing(data[:200_000], 300_000)},
		{name: "empty", handler: file(nil, `"v1"`), want: []byte{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, map[string]http.Handler{"images.example": tc.handler}, func(t *testing.T, w *world) {
				start := time.Now()
				got, err := w.get(w.request(address))
				if (tc.want != nil) != (err == nil) || tc.err != nil && !errors.Is(err, tc.err) {
					t.Fatalf("error %v, want %v", err, tc.err)
				}
				if err == nil && !bytes.Equal(got, tc.want) {
					t.Errorf("received %d bytes that differ from the %d of the file", len(got), len(tc.want))
				}
				if err != nil && (!strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret")) {
					t.Errorf("error %q, want it to say %q", err, tc.says)
				}
				notes := strings.Join(w.notes, "\n")
				if !strings.Contains(notes, tc.notes) || strings.Contains(notes, "secret") {
					t.Errorf("notes\n%s\nwant %q in them", notes, tc.notes)
				}
				for i, r := range tc.log {
					if len(tc.log) != len(w.log) || w.log[i] != "images.example "+r {
						t.Errorf("requests %q, want ranges %q", w.log, tc.log)
						break
					}
				}
				if took := time.Since(start); took < tc.least || took > tc.least+4*time.Minute {
					t.Errorf("it took %s, want at least %s", took, tc.least)
				}
			})
		})
	}
}

func page(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(text)) // the client ends this
	})
}

// announcing lies about the length of its file.
func announcing(data []byte, length int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Length", fmt.Sprint(length))
		_, _ = w.Write(data) // the client notices
	})
}

// TestAnnouncesTooLittle holds that only what was announced is taken, which
// the hash then shows.
func TestAnnouncesTooLittle(t *testing.T) {
	data := random(1000)
	inWorld(t, nil, func(t *testing.T, w *world) {
		l := make(chan net.Conn)
		w.net.hosts["images.example"] = l
		go func() {
			c := <-l
			_, _ = c.Read(make([]byte, 4096)) // the request
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n%s", data)
			_ = c.Close()
		}()
		got, err := w.get(w.request(address))
		if err != nil || !bytes.Equal(got, data[:500]) {
			t.Errorf("received %d bytes, %v", len(got), err)
		}
	})
}

func TestRedirects(t *testing.T) {
	data := random(10_000)
	loop := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) })
	to := func(url string) http.Handler { return http.RedirectHandler(url, http.StatusFound) }
	for _, tc := range []struct {
		name      string
		from      string
		first     http.Handler
		allowHTTP bool
		err       error
		says      string
	}{
		{name: "to another host", from: "http", first: to("http://cdn.example/x?token=secret")},
		{name: "from https to http", from: "https", first: to("http://cdn.example/x?token=secret"), err: ErrInsecure, says: "redirects from https to http (cdn.example)"},
		{name: "from https to http with a hash", from: "https", first: to("http://cdn.example/x"), allowHTTP: true},
		{name: "for ever", from: "http", first: loop, says: "more than 10 redirects"},
		{name: "to nowhere", from: "http", first: to("http://none.example/x?token=secret"), says: "no such host none.example"},
		{name: "to a refusal", from: "http", first: to("http://deny.example/x?token=secret"), says: "403 Forbidden (from deny.example, to which the server redirects)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hosts := map[string]http.Handler{"images.example": tc.first, "cdn.example": file(data, `"1"`), "deny.example": status(403)}
			inWorld(t, hosts, func(t *testing.T, w *world) {
				r := w.request(tc.from + "://images.example/disk.img")
				r.AllowHTTP = tc.allowHTTP
				got, err := w.get(r)
				switch {
				case tc.says == "" && (err != nil || !bytes.Equal(got, data)):
					t.Errorf("received %d bytes, %v", len(got), err)
				case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || tc.err != nil && !errors.Is(err, tc.err)):
					t.Errorf("error %v, want %q", err, tc.says)
				case err != nil && strings.Contains(err.Error(), "secret"):
					t.Errorf("the error shows a signed URL: %v", err)
				}
			})
		})
	}
}

// TestResume holds that a later process goes on where an earlier one ended,
// when it may.
func TestResume(t *testing.T) {
	data := random(300_000)
	good := file(data, `"v1"`)
	for _, tc := range []struct {
		name   string
		second http.Handler
		change func(r *Request)
		log    []string
	}{
		{"the same file", good, func(*Request) {}, []string{"bytes=100000-"}},
		{"another file", file(data, `"v2"`), func(*Request) {}, []string{"bytes=100000-"}},
		{"no ranges any more", withoutRanges(good), func(*Request) {}, []string{"bytes=100000-"}},
		{"ranges are wrong", good, func(r *Request) { r.WithoutRange = true }, []string{""}},
		{"another name", good, func(r *Request) { r.Name = "other" }, []string{""}},
		{"a shorter file", sequence(status(416, "Content-Range", "bytes */90000"), good), func(*Request) {}, []string{"bytes=100000-", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, map[string]http.Handler{"images.example": sequence(cutting(good, 100_000), tc.second)}, func(t *testing.T, w *world) {
				interrupt(w, 100_000)
				w.log = nil
				r := w.request(address)
				tc.change(&r)
				got, err := w.get(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("received %d bytes, %v", len(got), err)
				}
				if fmt.Sprint(trim(w.log)) != fmt.Sprint(tc.log) {
					t.Errorf("ranges %q, want %q", trim(w.log), tc.log)
				}
				if left, err := filepath.Glob(w.part + "*"); err != nil || len(left) > 0 {
					t.Errorf("left behind: %q, %v", left, err)
				}
			})
		})
	}
}

// interrupt reads n bytes and gives up, as a process that is killed.
func interrupt(w *world, n int64) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	s, err := w.c.Open(ctx, w.request(address))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, s.Reader(ctx), n); err != nil {
		w.t.Fatal(err)
	}
	cancel()
	if _, err := s.Reader(ctx).Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		w.t.Errorf("a read after the end of the context: %v", err)
	}
	if err := s.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func trim(log []string) []string {
	var ranges []string
	for _, l := range log {
		_, r, _ := strings.Cut(l, " ")
		ranges = append(ranges, r)
	}
	return ranges
}

// TestResumeComplete asks only whether the part file is still current.
func TestResumeComplete(t *testing.T) {
	data := random(100_000)
	inWorld(t, map[string]http.Handler{"images.example": file(data, `"v1"`)}, func(t *testing.T, w *world) {
		interrupt(w, int64(len(data)))
		got, err := w.get(w.request(address))
		if err != nil || !bytes.Equal(got, data) || w.log[len(w.log)-1] != "images.example bytes=100000-" {
			t.Errorf("received %d bytes, %v, by %q", len(got), err, w.log)
		}
	})
}

// TestDamagedNotes holds that a part file without good notes is not trusted.
func TestDamagedNotes(t *testing.T) {
	data := random(1000)
	for name, notes := range map[string]string{
		"none": "", "not JSON": "{", "too short": `{"Name":"http://images.example/disk.img","ETag":"\"v1\"","Total":10}`,
		"no version": `{"Name":"http://images.example/disk.img","Total":1000}`,
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, map[string]http.Handler{"images.example": file(data, `"v1"`)}, func(t *testing.T, w *world) {
				if err := errors.Join(os.WriteFile(w.part, []byte("something else"), 0o600), os.WriteFile(w.part+".json", []byte(notes), 0o600)); err != nil {
					t.Fatal(err)
				}
				if got, err := w.get(w.request(address)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("received %d bytes, %v", len(got), err)
				}
			})
		})
	}
}

// TestSignedURL asks for a new URL when the old one has expired.
func TestSignedURL(t *testing.T) {
	data := random(300_000)
	checking := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("signature") != "2" && r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if r.Header.Get("X-Extra") != "yes" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		cutting(file(data, `"v1"`), 100_000).ServeHTTP(w, r)
	})
	inWorld(t, map[string]http.Handler{"images.example": checking}, func(t *testing.T, w *world) {
		asked := 0
		r := Request{Name: "the asset", Part: w.part, Signed: true, Locate: func(context.Context) (Location, error) {
			asked++
			n := 1
			if asked > 2 {
				n = 2
			}
			return Location{URL: fmt.Sprintf("http://images.example/x?signature=%d", n), Header: http.Header{"X-Extra": {"yes"}}}, nil
		}}
		got, err := w.get(r)
		if err != nil || !bytes.Equal(got, data) || asked != 4 {
			t.Errorf("received %d bytes, %v, after asking %d times", len(got), err, asked)
		}
	})
}

func TestLocateFails(t *testing.T) {
	gone := errors.New("no such release")
	inWorld(t, nil, func(t *testing.T, w *world) {
		for _, tc := range []struct {
			err   error
			asked int
		}{{backoff.Permanent(gone), 1}, {gone, defaultTries}} {
			asked := 0
			_, err := w.get(Request{Name: "x", Part: w.part, Locate: func(context.Context) (Location, error) {
				asked++
				return Location{}, tc.err
			}})
			if !errors.Is(err, gone) || asked != tc.asked {
				t.Errorf("error %v after asking %d times, want %d", err, asked, tc.asked)
			}
		}
	})
}

// TestSlowReader holds that the watchdog does not bite while our own side is slow.
func TestSlowReader(t *testing.T) {
	data := random(300_000)
	inWorld(t, map[string]http.Handler{"images.example": file(data, `"v1"`)}, func(t *testing.T, w *world) {
		s, err := w.c.Open(t.Context(), w.request(address))
		if err != nil {
			t.Fatal(err)
		}
		r := s.Reader(t.Context())
		for range 3 {
			if _, err := io.CopyN(io.Discard, r, 100_000); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour) // in the bubble's time
		}
		if len(w.log) != 1 || len(w.notes) != 0 {
			t.Errorf("requests %q, notes %q", w.log, w.notes)
		}
		if err := s.Discard(); err != nil {
			t.Error(err)
		}
	})
}

// TestCancel holds that waits end with the context, and with its cause.
func TestCancel(t *testing.T) {
	stop := errors.New("stop requested")
	for name, h := range map[string]http.Handler{
		"while backing off": status(503, "Retry-After", "60"),
		"while stalling":    http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, map[string]http.Handler{"images.example": h}, func(t *testing.T, w *world) {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(10*time.Second, func() { cancel(stop) })
				start := time.Now()
				if _, err := w.c.Open(ctx, w.request(address)); !errors.Is(err, stop) {
					t.Errorf("Open = %v, want the cause", err)
				}
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func TestReceived(t *testing.T) {
	data := random(200_000)
	inWorld(t, map[string]http.Handler{"images.example": cutting(file(data, `"v1"`), 100_000)}, func(t *testing.T, w *world) {
		var last, total int64
		w.c.Received = func(d, n int64) {
			if d < last {
				t.Errorf("%d after %d", d, last)
			}
			last, total = d, n
		}
		if _, err := w.get(w.request(address)); err != nil {
			t.Fatal(err)
		}
		if last != 200_000 || total != 200_000 {
			t.Errorf("the last report is %d of %d", last, total)
		}
	})
}

func TestGet(t *testing.T) {
	for _, tc := range []struct {
		name    string
		handler http.Handler
		want    string
		says    string
	}{
		{"good", sequence(status(502), page("abc  file\n")), "abc  file\n", ""},
		{"too long", page(strings.Repeat("x", 101)), "", "it is longer than 100 bytes"},
		{"web page", page("<html>"), "", "a web page"},
		{"missing", status(404), "", "404 Not Found"},
		{"busy", status(500), "", "500 Internal Server Error (6 times in a row)"},
	} {
		inWorld(t, map[string]http.Handler{"images.example": tc.handler}, func(t *testing.T, w *world) {
			got, err := w.c.Get(t.Context(), "https://images.example/SHA512SUMS", 100)
			if string(got) != tc.want || (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s: %q, %v; want %q, %q", tc.name, got, err, tc.want, tc.says)
			}
		})
	}
}

// FuzzContentRange holds that what is accepted is not negative.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes */10", "bytes 5-9/*", "bytes", "", "bytes -1-2/3", "lines 1-2/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if first, total, ok := contentRange(text); ok && (first < 0 || total < -1) {
			t.Fatalf("contentRange(%q) = %d, %d", text, first, total)
		}
	})
}

// TestPartFile holds what a stream tells about itself, and what is said when
// the part file can't be written.
func TestPartFile(t *testing.T) {
	data := random(1000)
	inWorld(t, map[string]http.Handler{"images.example": file(data, `"v1"`)}, func(t *testing.T, w *world) {
		s, err := w.c.Open(t.Context(), w.request(address))
		if err != nil {
			t.Fatal(err)
		}
		etag, date := s.Validators()
		if s.Size() != 1000 || s.Have() != 0 || etag != `"v1"` || date != "" {
			t.Errorf("size %d, have %d, %q, %q", s.Size(), s.Have(), etag, date)
		}
		if err := s.part.Close(); err != nil { // as a disk that is gone
			t.Fatal(err)
		}
		if _, err := io.ReadAll(s.Reader(t.Context())); !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), "keeping what was received") {
			t.Errorf("error %v", err)
		}
		_ = s.Close() // the part file is closed already
		r := w.request(address)
		r.Part = filepath.Join(w.part, "below", "a", "file")
		if _, err := w.c.Open(t.Context(), r); err == nil || !strings.Contains(err.Error(), "opening the part file") {
			t.Errorf("error %v", err)
		}
		if got := Printable("https://u:secret@h/p?secret#secret"); got != "https://h/p" {
			t.Errorf("Printable = %q", got)
		}
		if got := Printable("%zz?secret"); strings.Contains(got, "secret") {
			t.Errorf("Printable = %q", got)
		}
		r.Part, r.Locate = w.part, At("http://%zz?secret", nil)
		if _, err := w.c.Open(t.Context(), r); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("a bad address: %v", err)
		}
	})
}
