package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/org/hurd-qemu-action/internal/guest"
)

// rekeyDelay leaves the first second after a restore to the script: what the
// guest's SSH server needs to begin anew would delay its first output by a
// seventh. Nobody gets in with the old keys meanwhile; only the host key that is
// shown to a second connection, from this host, is the old one for so long.
const rekeyDelay = time.Second

// rekeyTime bounds the restart: a dropbear gets ten seconds to end.
const rekeyTime = 30 * time.Second

// rekeying has the SSH server of a restored guest use its new host key, once.
type rekeying struct {
	mu   sync.Mutex
	need bool // the machine was restored, and its server has the old key
}

// now restarts the server if it still has the old key.
func (k *rekeying) now(ctx context.Context, rekey func(context.Context) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.need {
		return nil
	}
	if err := rekey(ctx); err != nil {
		k.need = !errors.Is(err, guest.ErrNoServer) // there will be none later either
		return err
	}
	k.need = false
	return nil
}

// rekeyLater does it when the script has begun. The function ends the waiting,
// and waits for what has begun.
func (r *run) rekeyLater(ctx context.Context) (stop func()) {
	waiting, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	client := r.client
	working.Go(func() {
		if sleep(waiting, rekeyDelay) {
			// Not with the context that stop ends: a server that was half restarted is none.
			limited, done := context.WithTimeoutCause(ctx, rekeyTime, fmt.Errorf("it took longer than %s", rekeyTime))
			defer done()
			r.rekeyWith(limited, client)
		}
	})
	return func() {
		cancel()
		working.Wait()
	}
}

// rekeyWith does it at once, through a connection.
func (r *run) rekeyWith(ctx context.Context, client *guest.Client) {
	if err := r.rekeying.now(ctx, client.Rekey); err != nil && ctx.Err() == nil {
		r.Log.Printf("The guest goes on with the host key of the saved machine: %v", err)
	}
}
