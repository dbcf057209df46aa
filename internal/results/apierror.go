package results

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// APIError is a refusal by a service or by the blob store.
type APIError struct {
	Method     string        // what was asked for: CreateArtifact, or what was done to the blob
	Status     int           // HTTP status
	Code       string        // Twirp's, such as permission_denied, or Azure's, such as AuthenticationFailed; may be empty
	Message    string        // the service's words, one line, without secrets; may be empty
	RetryAfter time.Duration // how long the service wants us to wait; 0: it did not say
}

// Error is "CreateArtifact: 403 Forbidden (permission_denied): the message".
func (e *APIError) Error() string {
	text := fmt.Sprintf("%s: %d %s", e.Method, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	if errors.Is(e, ErrQuota) {
		text += " (" + ErrQuota.Error() + "; GitHub counts it anew every 6 to 12 hours)"
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (the server asks to wait %s)", e.RetryAfter)
	}
	return text
}

// Unwrap finds the sentinel that a refusal amounts to.
func (e *APIError) Unwrap() error {
	switch lower := strings.ToLower(e.Message); {
	case e.Code == "already_exists", e.Status == http.StatusConflict && e.Code == "":
		return ErrExists // Azure's conflicts have codes of their own
	case strings.Contains(lower, "insufficient usage"), strings.Contains(lower, "storage quota"):
		return ErrQuota
	case e.Code == "bad_route":
		return ErrUnsupported
	}
	return nil
}

// retryable tells the refusals that may be others the next time.
func (e *APIError) retryable() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return !errors.Is(e, ErrQuota)
	}
	return false
}

// refusal reads an answer that is not the one that was hoped for. Nothing of
// a refusal of the blob store but its code is kept: its text may repeat what
// was signed.
func (s *Service) refusal(method string, resp *http.Response, now time.Time) *APIError {
	e := &APIError{Method: method, Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now)}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10)) // what can't be read tells nothing more
	var twirp struct{ Code, Msg, Message string }
	if json.Unmarshal(text, &twirp) == nil {
		e.Code = s.redact(twirp.Code)
		if e.Message = s.redact(twirp.Msg); e.Message == "" {
			e.Message = s.redact(twirp.Message)
		}
		return e
	}
	var azure struct{ Code string }
	if e.Code = s.redact(resp.Header.Get("x-ms-error-code")); e.Code == "" && xml.Unmarshal(text, &azure) == nil {
		e.Code = s.redact(azure.Code)
	}
	return e
}

// retryAfter reads the header's two forms (RFC 9110, section 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(n, 0), 24*3600)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), 24*time.Hour).Round(time.Second)
	}
	return 0
}

var (
	queries   = regexp.MustCompile(`(https?://[^\s?"'<>]*)\?[^\s"'<>]*`)
	signature = regexp.MustCompile(`(?i)(sig(?:nature)?=)[^\s&"'<>]+`)
	webToken  = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}[A-Za-z0-9_.=-]*`)
)

// redact makes a short printable line of a peer's words, without the token,
// anything like it, and the queries of addresses.
func (s *Service) redact(text string) string {
	if s.Token != "" {
		text = strings.ReplaceAll(text, s.Token, "***")
	}
	text = queries.ReplaceAllString(text, "$1?***")
	text = signature.ReplaceAllString(text, "$1***")
	text = webToken.ReplaceAllString(text, "***")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + "..."
	}
	return text
}

// plain takes the address out of an error of net/http: its query is the
// signature of a blob.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
