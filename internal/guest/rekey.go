package guest

import (
	"context"
	_ "embed" // the scripts that run in the guest
	"errors"
	"fmt"
)

//go:embed scripts/rekey.sh
var rekeyScript string

// ErrNoServer says that the guest's SSH server was not found.
var ErrNoServer = errors.New("no file in /run of the guest names the process of its SSH server")

// Rekey has the guest's SSH server use the host key that a Greeting has put
// there: new connections are shown it a moment later. It costs an emulated guest
// a tenth of a second of its processor.
func (c *Client) Rekey(ctx context.Context) error {
	var out, diag bounded
	status, err := c.Run(ctx, Command{Script: rekeyScript, Stdout: &out, Stderr: &diag})
	switch last := lastLine(out.String()); {
	case err != nil:
		return fmt.Errorf("restarting the guest's SSH server: %w", err)
	case last == "no server":
		return fmt.Errorf("restarting the guest's SSH server: %w", ErrNoServer)
	case last != "rekeyed":
		return fmt.Errorf("restarting the guest's SSH server: the script %s: %s", status, said(diag.String(), out.String()))
	}
	return nil
}
