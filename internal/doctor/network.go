package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// checkLoopback does what SSH to a guest does: connect to a port of 127.0.0.1.
func checkLoopback(ctx context.Context, e *exam) Finding {
	if e.Listen == nil || e.Dial == nil {
		return skipped("not asked")
	}
	const fix = "Bring the interface up (ip link set lo up), and let no firewall stand before it: SSH reaches the guest through a port of 127.0.0.1."
	l, err := e.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return broken(fmt.Sprintf("no port of 127.0.0.1 can be had: %v", err), fix)
	}
	defer func() { _ = l.Close() }() // nothing was said
	conn, err := e.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		return broken(fmt.Sprintf("a port of 127.0.0.1 can't be reached: %v", err), fix)
	}
	_ = conn.Close() // nothing was said
	return fine("ports of 127.0.0.1 can be had and reached")
}

// longestTemp is how long the name of the directory may be, for the monitor's
// socket in a run directory in it to have a path that fits (unix(7)).
const longestTemp = 107 - len("/hurd-qemu-action-0123456789/qmp.sock")

func checkSockets(ctx context.Context, e *exam) Finding {
	if e.Socket == nil || e.Paths.Temp == "" {
		return skipped("not asked")
	}
	dir := e.Paths.Temp
	if n := len(dir); n > longestTemp {
		return broken(fmt.Sprintf("the path %s has %d bytes, and the monitor's socket in it must have less than 108", dir, n), "Set RUNNER_TEMP or TMPDIR to a shorter path.")
	}
	if err := e.Socket(ctx, dir); err != nil {
		return broken(fmt.Sprintf("no socket can be made and used in %s: %v", dir, reason(err)), "Set RUNNER_TEMP or TMPDIR to a directory of a local file system that can be written: shares of other machines know no sockets.")
	}
	return fine("QEMU's monitor can have its socket in " + dir)
}

// proxyNames are the variables that downloads go by (net/http).
var proxyNames = []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"}

func checkProxy(ctx context.Context, e *exam) []Finding {
	var found []Finding
	seen := map[string]bool{}
	for _, name := range proxyNames {
		value := e.Getenv(name)
		if value == "" || seen[value] {
			continue
		}
		seen[value] = true
		f := e.proxy(ctx, name, value)
		if name == "HTTP_PROXY" && e.Getenv("REQUEST_METHOD") != "" {
			f = limited(name+" is not used where REQUEST_METHOD is set", "Write it in small letters.")
		}
		found = append(found, f)
	}
	switch {
	case len(found) > 0:
		return found
	case e.Getenv("ALL_PROXY") != "" || e.Getenv("all_proxy") != "":
		return one(limited("ALL_PROXY is set, which downloads do not go by", "Set HTTPS_PROXY as well."))
	}
	return one(fine("none is set"))
}

// proxy looks at one of them, without telling its password.
func (e *exam) proxy(ctx context.Context, name, value string) Finding {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return broken(name+" is not an address", "Write it like http://proxy.example.org:3128.")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	address := net.JoinHostPort(u.Hostname(), cmp.Or(port, "80"))
	if e.Dial == nil {
		return skipped("not asked")
	}
	conn, err := e.Dial(ctx, "tcp", address)
	if err != nil {
		return broken(fmt.Sprintf("%s names %s, which can't be reached: %v", name, address, err), "Correct or clear "+name+"; NO_PROXY lists the hosts that are reached without it.")
	}
	_ = conn.Close() // nothing was said
	return fine(fmt.Sprintf("%s (%s)", address, name))
}

// headTime bounds the question after one file, and slowHead is what is slow.
const (
	headTime = 4 * time.Second
	slowHead = 2 * time.Second
)

// checkDownloads asks for each file that a run may fetch.
func checkDownloads(ctx context.Context, e *exam) []Finding {
	if e.Client == nil || e.Downloads == nil {
		return one(skipped("not asked"))
	}
	files := e.Downloads()
	if len(files) == 0 {
		return one(skipped("no address is known that the image is fetched from"))
	}
	found := make([]Finding, len(files))
	var wait sync.WaitGroup
	for i, d := range files {
		wait.Go(func() { found[i] = e.download(ctx, d) })
	}
	wait.Wait()
	return found
}

func (e *exam) download(ctx context.Context, d Download) Finding {
	var causes []error
	for _, address := range d.Addresses {
		began := e.Now()
		size, err := e.head(ctx, address)
		if err != nil {
			causes = append(causes, err)
			continue
		}
		text := printable(address)
		if size > 0 {
			text += ", " + size.Human()
		}
		f := fine(text)
		if took := e.Now().Sub(began); took > slowHead {
			f = slow(fmt.Sprintf("%s; the answer took %.1f s", text, took.Seconds()), "Use a mirror that is nearer (image-mirror), or fill the image store before (hurd-qemu-action image pull).")
		}
		f.Title = d.Name
		return f
	}
	if len(causes) == 0 {
		return Finding{Title: d.Name, Verdict: Skipped, Text: "no address of it is known"}
	}
	text, fix := d.failure(causes), e.reach(causes[len(causes)-1])
	f := broken(text, fix...)
	switch {
	case d.Stored:
		f = fine("in the image store, so that it need not be fetched (" + text + ")")
	case !d.Wanted:
		f = limited(text, fix...)
	}
	f.Title = d.Name
	return f
}

// failure says why each address failed, once when it is the same for all.
func (d Download) failure(causes []error) string {
	texts := make([]string, len(causes))
	same := len(causes) > 1
	for i, cause := range causes {
		texts[i] = printable(d.Addresses[i]) + ": " + cause.Error()
		same = same && cause.Error() == causes[0].Error()
	}
	if same {
		return fmt.Sprintf("%s, and in %s: %v", printable(d.Addresses[0]), plural(len(causes)-1, "other place"), causes[0])
	}
	return strings.Join(texts, "; ")
}

// printable leaves out what may be a secret: queries and passwords.
func printable(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that can't be read"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// statusError is an answer other than success.
type statusError int

func (s statusError) Error() string {
	return fmt.Sprintf("HTTP status %d (%s)", int(s), http.StatusText(int(s)))
}

// head asks for a file's headers.
func (e *exam) head(ctx context.Context, address string) (units.Bytes, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, headTime, fmt.Errorf("no answer within %s", headTime))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return 0, errors.New("the address can't be read")
	}
	resp, err := e.Client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return 0, cause
		}
		var wrapped *url.Error // it quotes the address, which is named already
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // a HEAD has none
	if resp.StatusCode != http.StatusOK {
		return 0, statusError(resp.StatusCode)
	}
	return units.Bytes(resp.ContentLength), nil
}

// reach is what to do about an address that can't be reached.
func (e *exam) reach(err error) []string {
	proxy := slices.ContainsFunc(proxyNames, func(name string) bool { return e.Getenv(name) != "" })
	var status statusError
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &status) && (status == http.StatusNotFound || status == http.StatusGone):
		return []string{"The file was moved or is not public: look whether there is a newer preset, name its address as image, or use a mirror (image-mirror)."}
	case errors.As(err, &status):
		return []string{"The server refuses or has trouble: try later, or use a mirror (image-mirror)."}
	case errors.As(err, &dns):
		return []string{"The name can't be resolved: look at /etc/resolv.conf (docker run --dns), or set HTTPS_PROXY where only a proxy leads out."}
	case errors.As(err, &authority), errors.As(err, &certificate):
		return []string{"The certificate is not trusted: install ca-certificates, add the authority of a proxy that looks into connections (SSL_CERT_FILE), and look at the clock."}
	case proxy:
		return []string{"Look at the proxy: it must let connections to that host through."}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return []string{"Let the host through the firewall, set HTTPS_PROXY where only a proxy leads out, or use a mirror within reach (image-mirror)."}
	}
	return []string{"Look at the firewall and the proxy (HTTPS_PROXY), use a mirror within reach (image-mirror), or fill the image store elsewhere (hurd-qemu-action image pull) and bring it along (cache-dir)."}
}

// banner reads what a server says first, one line of at most 255 bytes.
func banner(ctx context.Context, conn net.Conn) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // which ends the read
	defer stop()
	buf := make([]byte, 0, 255)
	for len(buf) < cap(buf) {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if line, _, ok := strings.Cut(string(buf), "\n"); ok {
			return strings.TrimSpace(line), nil
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			} else if errors.Is(err, io.EOF) && len(buf) == 0 {
				err = errClosed
			}
			return "", err
		}
	}
	return strings.TrimSpace(string(buf)), nil
}

var errClosed = errors.New("the connection was closed at once")
