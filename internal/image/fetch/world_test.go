package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Every test runs in a bubble of synctest: connections are pipes in memory and
// time passes only when everybody waits, so that minutes of stalling and
// backing off take no time at all.

// network connects clients to servers by host name.
type network struct {
	mu    sync.Mutex
	hosts map[string]chan net.Conn
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, _ := strings.Cut(address, ":")
	n.mu.Lock()
	l := n.hosts[host]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("no such host %s", host)
	}
	client, server := net.Pipe()
	select {
	case l <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// listener hands the server its ends of the pipes.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// world is a server with a file and a client.
type world struct {
	t     *testing.T
	net   *network
	c     *Client
	part  string
	notes []string
	log   []string // requests: "host range"
}

// file serves contents with ranges and an ETag, as a good server does.
func file(data []byte, etag string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
}

// inWorld runs a test in a bubble, with servers for the hosts.
func inWorld(t *testing.T, hosts map[string]http.Handler, test func(t *testing.T, w *world)) {
	t.Helper()
	part := filepath.Join(t.TempDir(), "part")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, part: part, net: &network{hosts: map[string]chan net.Conn{}}}
		for host, handler := range hosts {
			w.serve(host, handler)
		}
		transport := &http.Transport{DialContext: w.net.dial, DialTLSContext: w.net.dial, DisableKeepAlives: true}
		w.c = &Client{HTTP: &http.Client{Transport: transport}, Notify: func(n string) { w.notes = append(w.notes, n) }}
		test(t, w)
		transport.CloseIdleConnections()
	})
}

func (w *world) serve(host string, handler http.Handler) {
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	w.net.hosts[host] = l.conns
	logged := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.net.mu.Lock()
		w.log = append(w.log, r.Host+" "+r.Header.Get("Range"))
		w.net.mu.Unlock()
		handler.ServeHTTP(rw, r)
	})
	s := &http.Server{Handler: logged, ReadHeaderTimeout: time.Hour}
	done := make(chan struct{})
	go func() {
		_ = s.Serve(l) // ends with Close
		close(done)
	}()
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
		<-done
	})
}

func (w *world) request(url string) Request {
	return Request{Name: Printable(url), Part: w.part, Locate: At(url, nil)}
}

// get receives a file to its end.
func (w *world) get(r Request) ([]byte, error) {
	s, err := w.c.Open(w.t.Context(), r)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(s.Reader(w.t.Context()))
	if err != nil {
		return data, errors.Join(err, s.Close())
	}
	if f, n, err := s.File(); err != nil || n != int64(len(data)) {
		w.t.Errorf("File() = %v, %d, %v; read were %d bytes", f, n, err, len(data))
	}
	return data, s.Discard()
}

func random(n int) []byte {
	d := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(d) // never fails
	return d
}

// cutting lets every answer end after limit bytes.
func cutting(h http.Handler, limit int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&cutWriter{ResponseWriter: w, left: limit}, r)
	})
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; err == nil && c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler) // closes the connection without an end
	}
	return n, err
}

func (c *cutWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// sequence answers the first requests with the first handlers, all others with the last.
func sequence(handlers ...http.Handler) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := handlers[0]
		if len(handlers) > 1 {
			handlers = handlers[1:]
		}
		mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

func status(code int, header ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	})
}

func withoutRanges(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		h.ServeHTTP(w, r)
	})
}
