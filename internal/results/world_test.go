package results

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/results/servicetest"
)

// world is the two services, and what their client said and waited for.
type world struct {
	*servicetest.World
	t     *testing.T
	notes []string
	waits []time.Duration
}

type fault = servicetest.Fault

const secret = servicetest.Secret

var (
	status, ok         = servicetest.Status, servicetest.OK
	cut, cutBody, hang = servicetest.Cut, servicetest.CutBody, servicetest.Hang
	makeToken          = servicetest.Token
)

var clock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(t *testing.T) *world {
	w := &world{World: servicetest.New(t), t: t}
	t.Cleanup(func() {
		w.Mu.Lock()
		defer w.Mu.Unlock()
		w.Clean(strings.Join(w.notes, "\n"))
	})
	return w
}

// lead is an HTTP client for which every host is the server at an address.
func lead(t testing.TB, address string) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: transfers}
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", strings.TrimPrefix(address, "http://"))
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// service is a client of this world.
func (w *world) service() *Service {
	return &Service{
		URL: w.Server.URL + "/some/path/", Token: w.Token, Client: lead(w.t, w.Server.URL),
		Notify: func(note string) { w.Mu.Lock(); defer w.Mu.Unlock(); w.notes = append(w.notes, note) },
		Sleep: func(ctx context.Context, d time.Duration) error {
			w.Mu.Lock()
			defer w.Mu.Unlock()
			w.waits = append(w.waits, d)
			return context.Cause(ctx)
		},
		Now: func() time.Time { return clock },
	}
}

// fails is an error of a kind, with words, without secrets.
func (w *world) fails(err, kind error, words ...string) {
	w.t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) {
		w.t.Fatalf("error %v, want one that is %v", err, kind)
	}
	w.Clean(err.Error())
	w.Clean(fmt.Sprintf("%+v", err))
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.t.Errorf("error %q does not say %q", err, word)
		}
	}
}
