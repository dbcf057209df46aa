package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-github/v57/github"
	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/fetch"
)

// TestPruneWhileOthersWork lets several stores on one directory unpack,
// prepare and use images while another one prunes everything all the time:
// what is in use stays readable, and nothing is ever half there.
func TestPruneWhileOthersWork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	raw := rawDisk(256 << 10)
	path := file(t, "disk.img.gz", gzipped(raw))
	src := mustParse(t, path)
	const workers, rounds = 4, 25
	ctx, stop := context.WithCancel(t.Context())
	var working, pruning sync.WaitGroup
	removed := 0
	pruning.Go(func() {
		s := &Store{Dir: dir, Now: func() time.Time { return time.Now().Add(time.Hour) }}
		for ctx.Err() == nil {
			p, err := s.Prune(ctx, time.Minute, 0)
			removed += len(p.Removed)
			if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
				return
			}
		}
	})
	for n := range workers {
		working.Go(func() {
			s := &Store{Dir: dir}
			for i := range rounds {
				if err := useOnce(ctx, s, src, fmt.Sprint((n+i)%3)); err != nil {
					t.Errorf("worker %d, round %d: %v", n, i, err)
					return
				}
			}
		})
	}
	working.Wait()
	stop()
	pruning.Wait()
	if removed == 0 {
		t.Error("nothing was pruned meanwhile: this test has tested nothing")
	}
	s := &Store{Dir: dir}
	tidy(t, s)
	for _, e := range listed(t, s) {
		if err := s.Verify(t.Context(), e); err != nil || e.Problem != "" {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// useOnce obtains and prepares an image, and reads both while they are in use.
func useOnce(ctx context.Context, s *Store, src Source, key string) error {
	b, err := s.Obtain(ctx, src, Want{})
	if err != nil {
		return err
	}
	p, err := s.Prepare(ctx, b, key, func(_ context.Context, path string) ([]byte, error) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteAt([]byte(key), 4096)
		return []byte(key), errors.Join(err, f.Close())
	})
	if err != nil {
		return errors.Join(err, b.Close())
	}
	first, err1 := os.ReadFile(b.Path)
	second, err2 := os.ReadFile(p.Path)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if string(p.Manifest) != key || string(second[4096:4096+len(key)]) != key || len(first) != len(second) {
		return fmt.Errorf("the prepared disk is not that of key %s", key)
	}
	return errors.Join(b.Close(), p.Close())
}

// TestHints holds that every error of the table is told with its advice, and
// that no advice is hidden by an earlier one.
func TestHints(t *testing.T) {
	for _, h := range hints {
		if got := hint(fmt.Errorf("some context: %w", h.err)); got != h.hint {
			t.Errorf("%v: %q, want %q", h.err, got, h.hint)
		}
		if h.hint == "" || strings.HasSuffix(h.hint, ".") || strings.ToLower(h.hint[:1]) != h.hint[:1] {
			t.Errorf("%v: %q is no clause that follows a semicolon", h.err, h.hint)
		}
	}
	for status, says := range map[int]string{404: "check the address", 429: "asked too often", 500: "in trouble", 503: "in trouble", 418: ""} {
		if got := hint(fmt.Errorf("x: %w", &fetch.StatusError{Status: status})); !strings.Contains(got, says) || (says == "") != (got == "") {
			t.Errorf("%d: %q, want %q", status, got, says)
		}
	}
	network := &url.Error{Op: "Get", Err: unix.ECONNREFUSED}
	if got := hint(network); !strings.Contains(got, "HTTPS_PROXY") {
		t.Errorf("%v: %q", network, got)
	}
	if got := hint(errors.New("something else")); got != "" {
		t.Errorf("%q for an error that we know nothing about", got)
	}
	once := explain("obtaining", "x", disk.ErrNotDisk)
	if twice := explain("preparing", "y", once); !errors.Is(twice, once) || twice.Error() != once.Error() {
		t.Errorf("explained twice: %v", twice)
	}
}

// TestHubErrors holds what becomes of the library's errors.
func TestHubErrors(t *testing.T) {
	wait := 90 * time.Second
	secret, err := url.Parse("https://example.org/x?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	answer := &http.Response{StatusCode: http.StatusBadGateway, Request: &http.Request{Method: http.MethodGet, URL: secret}}
	for _, tc := range []struct {
		err  error
		says string
	}{
		{&github.AbuseRateLimitError{Response: answer, RetryAfter: &wait}, "429 Too Many Requests (try again in 1m30s)"},
		{&github.AbuseRateLimitError{Response: answer}, "429 Too Many Requests"},
		{&github.ErrorResponse{Response: answer, Message: "secret"}, "502 Bad Gateway"},
		{&url.Error{Op: "Get", URL: secret.String(), Err: unix.ECONNRESET}, "connection reset by peer"},
		{nil, "<nil>"},
	} {
		if got := fmt.Sprint(hubError(tc.err)); got != tc.says {
			t.Errorf("%v becomes %q, want %q", tc.err, got, tc.says)
		}
	}
	many := strings.Split("a b c d e f g h i j k", " ")
	for want, names := range map[string][]string{"none at all": nil, "a": many[:1], "a, b, c, d, e, f, g, h, i, j, ...": many} {
		if got := list(names); got != want {
			t.Errorf("list(%q) = %q", names, got)
		}
	}
}
