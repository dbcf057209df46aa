package provision

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Keys are what one run puts into its guest.
type Keys struct {
	// Authorized are lines of an authorized_keys file, without newlines; those
	// of all together must fit into the 4 KiB that Prepare left for them.
	Authorized []string
	// Host is the key by which the guest's SSH server is recognized.
	Host ed25519.PrivateKey
}

const hostKeyComment = "hurd-qemu-action"

// opensshKey writes a host key as sshd reads it. All keys take the same
// number of bytes: the format pads, and the comment is fixed.
func opensshKey(key ed25519.PrivateKey) ([]byte, error) {
	block, err := ssh.MarshalPrivateKey(key, hostKeyComment)
	if err != nil {
		return nil, fmt.Errorf("encoding the host key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// dropbearKey writes a host key as dropbear reads it (dropbear's ed25519.c,
// buf_put_ed25519_priv_key): two strings as in RFC 4251, the type's name and
// seed and public key together.
func dropbearKey(key ed25519.PrivateKey) []byte {
	out := appendString(nil, []byte(ssh.KeyAlgoED25519))
	return appendString(out, key)
}

func appendString(out, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(out, uint32(len(s))), s...)
}

// The part of authorized_keys that belongs to a run lies at the file's
// beginning, where it starts a block of the file system, and is padded with
// empty lines, which every server skips.
const (
	slackSize  = 4096
	slackBegin = "# hurd-qemu-action: what follows up to the end mark is made anew for every run\n"
	slackEnd   = "\n# hurd-qemu-action: end\n"
)

// ErrKeysTooLong says that the keys do not fit where they must go.
var ErrKeysTooLong = errors.New("the authorized keys are too long")

// slack is the part of authorized_keys that belongs to a run.
func slack(lines []string) ([]byte, error) {
	var b strings.Builder
	b.WriteString(slackBegin)
	for _, line := range lines {
		if strings.ContainsAny(line, "\r\n\x00") {
			return nil, errors.New("an authorized key holds a line break")
		}
		b.WriteString(line + "\n")
	}
	padding := slackSize - b.Len() - len(slackEnd)
	if padding < 0 {
		return nil, fmt.Errorf("%w: %d bytes more than the %d that there are", ErrKeysTooLong, -padding, slackSize)
	}
	b.WriteString(strings.Repeat("\n", padding) + slackEnd)
	return []byte(b.String()), nil
}

// withoutSlack is the part of an authorized_keys file that is not ours.
func withoutSlack(file []byte) []byte {
	rest, ok := strings.CutPrefix(string(file), slackBegin)
	if !ok {
		return file
	}
	if _, after, ok := strings.Cut(rest, slackEnd); ok {
		return []byte(after)
	}
	return file
}

// placeholder fills a file that Fill will rewrite. It is no valid key, so a
// guest that was never filled has no key that someone else could know, and it
// has no zero bytes, so that it gets blocks.
func placeholder(size int) []byte {
	const text = "this host key is replaced in every run\n"
	return []byte(strings.Repeat(text, size/len(text)+1)[:size])
}
