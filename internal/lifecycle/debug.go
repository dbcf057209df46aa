package lifecycle

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/tunnel"
)

// debugOnFailure is the mode of the input debug that keeps a guest.
const debugOnFailure = "on-failure"

// debugDir is the directory in the run directory that has what lets people in.
const debugDir = "debug"

// guestEnd is the file that ends the holding when it is made in the guest: who
// came through the tunnel sees no other file system.
const guestEnd = "/continue"

// guestLook is how often it is looked for.
const guestLook = 2 * time.Second

// debugEntry bounds each of the ways in that a guest must agree to.
const debugEntry = 30 * time.Second

// debugReminder is how often the log of a run that holds a guest says so: a job
// whose log stands still looks dead.
const debugReminder = 5 * time.Minute

// hold keeps the guest of a run that has failed for people to look at, and says
// how to get in. It changes nothing about how the run ends.
func (r *run) hold(ctx context.Context, why string) {
	if r.config.Debug != debugOnFailure || r.machine == nil || ctx.Err() != nil && errors.As(context.Cause(ctx), new(Interrupt)) {
		return
	}
	if err := r.machine.Err(); err != nil {
		r.Log.Printf("There is no guest to keep for debug: %v", err)
		return
	}
	start := time.Now()
	defer r.letType()()
	if r.client != nil {
		defer r.client.Rest()() // a console is people's now
	}
	limit, stop := r.ending.context(ctx, r.config.DebugTimeout, endBudget) // an interrupt ends it at once
	defer stop()
	end, note := r.letIn(limit, why)
	reason := r.untilDone(limit, end, note)
	r.phase("Debug", start, reason, nil)
	r.Log.Printf("The guest is no longer kept: %s.", reason)
}

// mayHold tells whether the machine would be kept if the run failed now.
func (r *run) mayHold() bool {
	return r.config.Debug == debugOnFailure && r.machine.Err() == nil && !r.interrupted()
}

func (r *run) interrupted() bool {
	_, yes := r.ending.soon()
	return yes
}

// remoteBroken tells whether the disk from the job's cache has failed, after
// which the run boots once more.
func (r *run) remoteBroken() bool { return r.remote.disk != nil && r.remote.broken() != nil }

// letIn makes the ways in and prints them. It returns the file that ends the
// holding, and a line for the reminders.
func (r *run) letIn(ctx context.Context, why string) (end, note string) {
	dir := filepath.Join(r.dir, debugDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		r.warn("No directory for the ways in", err.Error())
	}
	end = filepath.Join(dir, "continue")
	until := time.Now().Add(r.config.DebugTimeout).UTC().Format("15:04:05 UTC")
	note = "The guest is kept until " + until
	r.Log.Annotate(actions.Notice, "The guest is kept", fmt.Sprintf("%s. It is kept for %s, until %s; the log says how to get in", why, r.config.DebugTimeout, until))
	say := func(what, how string) { r.Log.Printf("  %-8s %s", what+":", how) }
	say("Console", "hurd-qemu-action console --guest "+r.dir)
	say("Monitor", "hurd-qemu-action qmp --guest "+r.dir+" query-status")
	if r.Host.Container != "" {
		say("Host", "from the host of this container, put this before each of these commands: docker exec -it "+r.Host.Container)
	}
	if ssh := r.client != nil && r.gone() == nil && !r.overConsole(); !ssh && r.config.DebugTunnel.Addr != "" {
		r.warn("No tunnel", "the guest is not reached over SSH, which is what a tunnel leads to")
	} else if ssh {
		if how, err := r.letInSSH(ctx, dir); err != nil {
			r.warn("No way in over SSH", err.Error())
		} else {
			say("Shell", how)
		}
	}
	if r.features.VNC {
		if addr, err := r.letInVNC(ctx, dir); err != nil {
			r.warn("No way in over VNC", err.Error())
		} else {
			say("Screen", fmt.Sprintf("VNC at %s; the password is in %s", addr, filepath.Join(dir, "vnc-password")))
		}
	}
	if r.client == nil || r.overConsole() {
		say("End", "touch "+end+", or cancel the job")
	} else {
		say("End", "touch "+end+", or in the guest: touch "+guestEnd+" (or ~"+guestEnd+"), or cancel the job")
	}
	return end, note
}

// letInSSH makes a key for this guest, and tells how to use it.
func (r *run) letInSSH(ctx context.Context, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, debugEntry)
	defer cancel()
	port, err := r.machine.ForwardedPort(ctx, r.config.SSHPort)
	if err != nil {
		return "", err
	}
	if err := r.rekeying.now(ctx, r.client.Rekey); err != nil {
		return "", err
	}
	key, err := guest.GenerateKey("hurd-qemu-action debug")
	if err != nil {
		return "", err
	}
	lines := "\n" + string(key.AuthorizedKey()) // the last line of the owner's may have no end
	for _, k := range r.config.DebugKeys {
		lines += string(ssh.MarshalAuthorizedKey(k))
	}
	if err := r.authorize(ctx, lines); err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(key.Private(), "")
	if err != nil {
		return "", fmt.Errorf("writing the key: %w", err)
	}
	const alias = "guest"
	var known strings.Builder
	for _, k := range r.keys.pinned {
		known.WriteString(knownhosts.Line([]string{alias}, k) + "\n")
	}
	identity, hosts, config := filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts"), filepath.Join(dir, "ssh_config")
	text := fmt.Sprintf("Host %s\n  HostName 127.0.0.1\n  Port %d\n  User %s\n  IdentityFile %q\n  IdentitiesOnly yes\n  UserKnownHostsFile %q\n  HostKeyAlias %s\n  StrictHostKeyChecking yes\n",
		alias, port, r.config.SSHUser, identity, hosts, alias)
	err = errors.Join(os.WriteFile(identity, pem.EncodeToMemory(block), 0o600), os.WriteFile(hosts, []byte(known.String()), 0o600), os.WriteFile(config, []byte(text), 0o600))
	if err != nil {
		return "", err
	}
	r.openTunnel(ctx, port)
	return fmt.Sprintf("ssh -F %s %s", config, alias), nil
}

// authorize lets more keys into the guest.
func (r *run) authorize(ctx context.Context, lines string) error {
	var diag strings.Builder
	status, err := r.client.Run(ctx, guest.Command{
		Line: `umask 077 && mkdir -p "$HOME/.ssh" && cat >>"$HOME/.ssh/authorized_keys"`, Stdin: strings.NewReader(lines), Stderr: &diag,
	})
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("the command %s: %s", status, actions.Printable(strings.TrimSpace(diag.String())))
	}
	if err != nil {
		return fmt.Errorf("adding keys to the guest's authorized_keys: %w", err)
	}
	return nil
}

// openTunnel makes the guest's SSH port reachable at the user's own server.
func (r *run) openTunnel(ctx context.Context, port int) {
	to := r.config.DebugTunnel
	if to.Addr == "" {
		return
	}
	t, err := tunnel.Open(ctx, tunnel.Options{
		User: to.User, Addr: to.Addr, Signer: to.Signer, HostKeys: to.HostKeys, Target: fmt.Sprintf("127.0.0.1:%d", port),
	})
	if err != nil {
		r.warn("No tunnel", err.Error())
		return
	}
	r.cleanup.push("closing the tunnel", func(context.Context) error { return t.Close() })
	host, _, _ := net.SplitHostPort(to.Addr) // it was put together by config
	r.Log.Printf("  %-8s on %s: ssh -p %d %s@127.0.0.1, with one of debug-key; the guest's host key is %s",
		"Tunnel:", host, t.Port(), r.config.SSHUser, fingerprints(r.keys.pinned))
	go func() {
		<-t.Done()
		if err := t.Err(); !errors.Is(err, tunnel.ErrClosed) {
			r.Log.Printf("The tunnel at %s has ended: %v", host, err)
		}
	}()
}

func fingerprints(keys []ssh.PublicKey) string {
	texts := make([]string, len(keys))
	for i, k := range keys {
		texts[i] = ssh.FingerprintSHA256(k)
	}
	return strings.Join(texts, " or ")
}

// letInVNC shows the guest's screen on loopback.
func (r *run) letInVNC(ctx context.Context, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, debugEntry)
	defer cancel()
	addr, password, err := r.machine.ShowVNC(ctx)
	if err != nil {
		return "", err
	}
	return addr, os.WriteFile(filepath.Join(dir, "vnc-password"), []byte(password+"\n"), 0o600)
}

// untilDone waits until nobody needs the guest any more, and says why.
func (r *run) untilDone(ctx context.Context, end, note string) string {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	remind := time.NewTicker(debugReminder)
	defer remind.Stop()
	asked := r.askGuest(ctx)
	for {
		select {
		case <-asked:
			return "somebody has made the file " + guestEnd + " in the guest"
		case <-r.ending.signal():
			return "the run was interrupted"
		case <-ctx.Done():
			if r.interrupted() {
				return "the run was interrupted"
			}
			return fmt.Sprintf("debug-timeout (%s) is over", r.config.DebugTimeout)
		case <-r.machine.Done():
			var exit *qemu.ExitError
			if errors.As(r.machine.Err(), &exit) {
				return exit.Error()
			}
			return "the machine has ended"
		case <-remind.C:
			r.Log.Printf("%s.", note)
		case <-look.C:
			if _, err := os.Stat(end); err == nil {
				return "somebody has made the file " + filepath.Base(end)
			}
		}
	}
}

// askGuest closes the channel when guestEnd is in the guest.
func (r *run) askGuest(ctx context.Context) <-chan struct{} {
	made := make(chan struct{})
	if r.client == nil || r.gone() != nil || r.overConsole() {
		return made
	}
	go func() {
		for sleep(ctx, guestLook) {
			status, err := r.client.Run(ctx, guest.Command{Line: "test -e " + guestEnd + ` || test -e "$HOME` + guestEnd + `"`})
			switch {
			case err != nil && r.client.Err() != nil:
				return // the machine's own end is noticed elsewhere
			case err != nil: // a session that could not be had, perhaps
			case status.Code == 0:
				close(made)
				return
			}
		}
	}()
	return made
}

// holdFailed keeps the guest of a run whose pass has ended with err, or whose
// script has failed. It tells whether the run was interrupted meanwhile, which
// changes nothing about how it has ended.
func (r *run) holdFailed(ctx context.Context, err error) (interrupted bool) {
	defer func(before bool) { interrupted = !before && r.interrupted() }(r.interrupted())
	switch {
	case err != nil && r.result.Attempts == 0 && r.client == nil: // it never came to a guest
	case err != nil:
		r.hold(ctx, failureText(err))
	case r.result.Kind == ScriptFailed:
		r.hold(ctx, fmt.Sprintf("The script ended with status %d", r.result.ExitCode))
	case r.result.Kind == Signaled:
		r.hold(ctx, "The script was killed by signal "+signalName(r.result.ExitCode-128))
	}
	return false // the deferred function knows
}

// failureText is a failure in one line.
func failureText(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Title + ": " + e.Error()
	}
	return err.Error()
}
