package actions

import "io"

// Replay prints what was recorded elsewhere, fenced, as a group of its own. It
// is for what one goroutine at a time has to say: others who print meanwhile do
// so before or after the whole of it, but for the group's title and end.
func (l *Log) Replay(title string, recorded io.Reader) error {
	title = oneLine(title)
	if l.opt.Commands {
		l.command.Group(title)
		defer l.command.EndGroup()
	} else {
		l.Printf("==> %s", title)
	}
	out, _ := l.Guest()
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := io.Copy(locked{out.(guest)}, recorded)
	l.closeFence()
	return err
}

// locked is a guest's writer for who holds the lock.
type locked struct{ guest }

func (w locked) Write(p []byte) (int, error) { return w.write(p) }
