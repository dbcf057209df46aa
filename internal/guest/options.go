package guest

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// Options say which guest to dial and how. Addr, Signer and HostKeys are required.
type Options struct {
	Addr     string          // host:port of the forwarded port
	User     string          // empty: root
	Signer   ssh.Signer      // our key
	HostKeys []ssh.PublicKey // the keys that the guest may have; there is no trust on first use

	// Emulated prefers ciphers that are fast where the processor is emulated:
	// ChaCha20-Poly1305 moves 2 to 4 times what AES does there, which has no
	// hardware to rely on.
	Emulated bool

	// Silence is how long the guest may leave keepalives unanswered before the
	// connection counts as lost. 0 means one minute. An emulated guest that
	// writes to its disk can be deaf for many seconds.
	Silence time.Duration

	// LoginShell is the user's, when it is known already: see Client.LoginShell. It
	// is forgotten when the first command has failed.
	LoginShell string
	unsure     bool // what is said of the login shell did not hold

	// Greeting is what the first command does besides proving that the guest can
	// be used.
	Greeting Greeting

	// Dial makes the connection; nil uses TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnFailure is told of every attempt that failed, from Dial's goroutine. It
	// may be nil.
	OnFailure func(attempt int, stage Stage, err error)

	// OnAnswer is called when a server has spoken to an attempt, from the attempt's
	// goroutine: once for each. It may be nil.
	OnAnswer func()
}

const (
	defaultSilence = time.Minute
)

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Addr == "":
		return o, errors.New("dialling the guest: no address")
	case o.Signer == nil:
		return o, errors.New("dialling the guest: no client key")
	case len(o.HostKeys) == 0:
		return o, errors.New("dialling the guest: no host key to expect; an unknown one is never trusted")
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	return o.withCommonDefaults(), nil
}

func (o Options) withCommonDefaults() Options {
	if o.User == "" {
		o.User = "root"
	}
	if o.Silence <= 0 {
		o.Silence = defaultSilence
	}
	return o
}

// timing is how Dial paces its attempts. The forwarded port of QEMU's user
// network accepts at once, whatever the guest does: an attempt that gets no
// answer may be lost (its SYN went to a guest without a network, and will be
// repeated only after longer and longer times) or may be on its way (a guest
// that takes seconds to fork a server). So several run side by side: quick ones
// that are replaced soon, and one that waits.
type timing struct {
	hedge     time.Duration // an attempt without an answer for this long gets company
	most      int           // attempts at once; servers drop more than a handful of logins in progress
	retry     time.Duration // pause after a refusal or a reset
	refused   time.Duration // pause after a wrong host key or a refused login
	repeats   int           // how many such answers in a row are final
	quick     time.Duration // first patience of a quick attempt, and
	quickMost time.Duration // the longest
	quickEach int           // quick attempts in vain until their patience doubles
	slow      time.Duration // first patience of the one that waits, and
	slowMost  time.Duration // the longest
	login     time.Duration // first bound of key exchange, login and first command together, and
	loginMost time.Duration // the longest
}

// defaultTiming sends a fresh SYN every 1.05 s for half a minute, every 2.1 s for
// the next one, and then every 4.2 s. A SYN that the guest's network does not take
// waits a second in QEMU's, and is delivered even if its connection was given up:
// with one a second, an emulated guest whose network comes up has few of them to
// start a process for. (QEMU's e1000 gives a guest nothing in the second after it
// is set up.) A server that is there and just slow to
// speak counts each attempt as a login never tried: since 9.8 OpenSSH refuses a
// source when it has 15 s of such penalties, of 1 s each, which run off as fast
// as the clock.
func defaultTiming() timing {
	return timing{
		hedge: 500 * time.Millisecond, most: 2, retry: 120 * time.Millisecond,
		refused: time.Second, repeats: 5,
		quick: 1050 * time.Millisecond, quickMost: 4200 * time.Millisecond, quickEach: 30,
		slow: 10 * time.Second, slowMost: time.Minute,
		login: 15 * time.Second, loginMost: 2 * time.Minute,
	}
}

// grown is a patience after n attempts that ran out of it, twice as long each time.
func grown(first, most time.Duration, n int) time.Duration {
	for ; n > 0 && first < most; n-- {
		first += first
	}
	return min(first, most)
}

// clientConfig is what is offered to the server: modern algorithms only, the
// host key types that are pinned, and the ciphers in the order that suits.
func (o Options) clientConfig(check ssh.HostKeyCallback) *ssh.ClientConfig {
	chacha := []string{ssh.CipherChaCha20Poly1305}
	aes := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherAES128CTR, ssh.CipherAES256CTR}
	ciphers := append(append([]string{}, aes[:2]...), append(chacha, aes[2:]...)...)
	if o.Emulated {
		ciphers = append(chacha, aes...)
	}
	return &ssh.ClientConfig{
		Config: ssh.Config{
			Ciphers:      ciphers,
			KeyExchanges: []string{ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256, ssh.KeyExchangeDH14SHA256},
		},
		User:              o.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(o.Signer)},
		HostKeyCallback:   check,
		HostKeyAlgorithms: hostKeyAlgorithms(o.HostKeys),
		ClientVersion:     "SSH-2.0-hurd-qemu-action",
	}
}

// hostKeyAlgorithms restricts the server to the types of the pinned keys;
// otherwise it could present a key of another type that is its own as well.
func hostKeyAlgorithms(keys []ssh.PublicKey) []string {
	var algorithms []string
	for _, k := range keys {
		if k.Type() == ssh.KeyAlgoRSA {
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		algorithms = append(algorithms, k.Type())
	}
	return algorithms
}
