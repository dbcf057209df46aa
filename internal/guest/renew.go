package guest

import (
	"context"
	"crypto/rand"
	_ "embed" // the scripts that run in the guest
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

//go:embed scripts/renew.sh
var renewScript string

//go:embed scripts/rekey.sh
var rekeyScript string

// seedSize is how much randomness a restored guest gets: twice what any of the
// generators in use takes in.
const seedSize = 512

// A Beginning is what a file in the guest shall begin with.
type Beginning struct {
	File string
	Data []byte
}

// Renew makes a guest that was restored one of its own: the files (keys, that
// is) get new beginnings, the kernel's random numbers a seed of ours, the clock
// the time. A host key among them is not in use before Rekey. Only root can do
// that. It tells whether the clock could be set.
func (c *Client) Renew(ctx context.Context, now time.Time, files []Beginning) (clock bool, err error) {
	seed := make([]byte, seedSize)
	if _, err := io.ReadFull(rand.Reader, seed); err != nil {
		return false, fmt.Errorf("renewing the guest: %w", err)
	}
	// The kernel's own source of randomness may take what it likes.
	in := "test ! -c /dev/urandom || " + printing(seed) + " >/dev/urandom 2>/dev/null\n:"
	for _, f := range files {
		in += " &&\n" + printing(f.Data) + " 1<>" + quote(f.File)
	}
	var out, diag bounded
	status, err := c.Run(ctx, Command{
		Line:  ScriptLine(renewScript, strconv.FormatInt(now.Round(time.Second).Unix(), 10)),
		Stdin: strings.NewReader(in + "\n"), Stdout: &out, Stderr: &diag,
	})
	if err != nil {
		return false, fmt.Errorf("renewing the guest: %w", err)
	}
	switch lastLine(out.String()) {
	case "renewed":
		return true, nil
	case "renewed noclock":
		return false, nil
	}
	return false, fmt.Errorf("renewing the guest: the script %s: %s", status, printable(strings.TrimSpace(diag.String()+" "+out.String())))
}

// ErrNoServer says that the guest's SSH server was not found.
var ErrNoServer = errors.New("no file in /run of the guest names the process of its SSH server")

// Rekey has the guest's SSH server use the host key that Renew has put there:
// new connections are shown it a moment later. It costs an emulated guest a
// tenth of a second of its processor.
func (c *Client) Rekey(ctx context.Context) error {
	var out, diag bounded
	status, err := c.Run(ctx, Command{Line: ScriptLine(rekeyScript), Stdout: &out, Stderr: &diag})
	switch last := lastLine(out.String()); {
	case err != nil:
		return fmt.Errorf("restarting the guest's SSH server: %w", err)
	case last == "no server":
		return fmt.Errorf("restarting the guest's SSH server: %w", ErrNoServer)
	case last != "rekeyed":
		return fmt.Errorf("restarting the guest's SSH server: the script %s: %s", status, printable(strings.TrimSpace(diag.String()+" "+out.String())))
	}
	return nil
}
