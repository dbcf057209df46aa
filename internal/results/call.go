package results

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The two services, by their protobuf names.
const (
	artifactService = "github.actions.results.api.v1.ArtifactService"
	cacheService    = "github.actions.results.api.v1.CacheService"
)

// maxReply bounds a reply. The longest, a list of artifacts, is far shorter.
const maxReply = 1 << 20

// call asks a service and returns its reply, which has "ok": true or belongs
// to a method that has no such field. Requests are sent with protobuf's own
// field names, which every server takes.
func (s *Service) call(ctx context.Context, service, method string, in any) (reply, error) {
	origin, err := s.origin()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("writing a request: %w", err)
	}
	address := origin + "/twirp/" + service + "/" + method
	var r reply
	err = s.retry(ctx, method, func(ctx context.Context, _ func()) error {
		r, err = s.ask(ctx, method, address, text)
		return err
	})
	return r, err
}

// ask makes one request.
func (s *Service) ask(ctx context.Context, method, address string, text []byte) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return nil, lasting{fmt.Errorf("%s: %w", method, plain(err))}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.Token)
	resp, err := s.api().Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, plain(err))
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if !succeeded(resp.StatusCode) {
		e := s.refusal(method, resp, s.now())
		if e.Code == "" && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented) {
			return nil, fmt.Errorf("%w: %w (GitHub Enterprise Server and older self-hosted servers have no artifacts version 4 and no cache version 2)", ErrUnsupported, e)
		}
		return nil, e
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, fmt.Errorf("%s: reading the reply: %w", method, plain(err))
	}
	r, err := parseReply(body)
	if err != nil {
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		return nil, lasting{fmt.Errorf("%w: %s was answered with %s, not with JSON", ErrUnsupported, method, named(kind))}
	}
	return r, nil
}

// named is a content type for people.
func named(kind string) string {
	switch kind {
	case "":
		return "something"
	case "application/json":
		return "something broken"
	}
	return strconv.Quote(kind)
}

// reply is a JSON object by folded field names: protobuf's JSON has two
// spellings for each field, signed_upload_url and signedUploadUrl, and servers
// use either.
type reply map[string]json.RawMessage

var errReply = errors.New("no JSON object")

func parseReply(text []byte) (reply, error) {
	var fields map[string]json.RawMessage
	if len(text) > maxReply || json.Unmarshal(text, &fields) != nil || fields == nil {
		return nil, errReply
	}
	r := reply{}
	// Sorted, so that of two spellings at once always the same counts.
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		r[fold(name)] = fields[name]
	}
	return r, nil
}

func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// text is a string field, "" when there is none.
func (r reply) text(name string) string {
	var v string
	if json.Unmarshal(r[fold(name)], &v) != nil {
		return ""
	}
	return v
}

// ok is the field of that name. protobuf's JSON leaves out a false.
func (r reply) ok() bool {
	var v bool
	return json.Unmarshal(r["ok"], &v) == nil && v
}

// number is an int64, which protobuf's JSON writes as a string; 0 when there
// is none.
func (r reply) number(name string) int64 {
	n, err := strconv.ParseInt(strings.Trim(string(r[fold(name)]), `"`), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
