package qmp

import (
	"context"
	"io"
	"slices"
	"testing"
	"time"
)

// chunks is a peer that sends a prepared stream in pieces, and takes everything.
type chunks struct {
	data   []byte
	sizes  []byte
	piece  int
	closed chan struct{}
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	size := len(c.data)
	if len(c.sizes) > 0 {
		size = int(c.sizes[c.piece%len(c.sizes)])%7 + 1
		c.piece++
	}
	n := copy(p[:min(len(p), size)], c.data)
	c.data = c.data[n:]
	return n, nil
}

func (c *chunks) Write(p []byte) (int, error) { return len(p), nil }
func (c *chunks) Close() error                { close(c.closed); return nil }

// outcome is all that a user of a connection can see of a stream.
type outcome struct {
	version string
	end     string
	events  []string
}

func observe(t *testing.T, data, sizes []byte) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream := &chunks{data: slices.Clone(data), sizes: sizes, closed: make(chan struct{})}
	c := &Conn{
		rwc: stream, frames: make(chan frame), done: make(chan struct{}),
		pending: map[uint64]chan message{}, subs: map[*Subscription]struct{}{},
	}
	events := c.Subscribe()
	greeting := make(chan Version, 1)
	c.workers.Add(2)
	go c.read(greeting)
	go c.write()
	_ = c.Execute(ctx, "qmp_capabilities", nil, nil) // refused or not, it must come back
	<-c.Done()
	if ctx.Err() != nil {
		t.Fatalf("%q in pieces of %v hangs", data, sizes)
	}
	var o outcome
	for e := range events.Events() {
		o.events = append(o.events, e.Name)
	}
	select {
	case v := <-greeting:
		o.version = v.String()
	default:
	}
	o.end = c.Err().Error()
	_ = c.Close()
	<-stream.closed
	return o
}

// FuzzStream holds that no stream makes a connection panic or hang, and that
// how it is cut into pieces changes nothing.
func FuzzStream(f *testing.F) {
	for _, s := range []string{
		"", "{", greetingLine, greetingLine + `{"return": {}, "id": 1}`,
		greetingLine + `{"event": "STOP"}{"event": "RESUME", "data": {}}` + "\n\n[]",
		`{"error": {"class": "X", "desc": "y"}, "id": 1}`, `{"QMP": null, "event": 3}`, `{"return": null, "id": 1e0}`,
		"{\r\n    \"return\": {\r\n    }, \"id\": 1\r\n}\r\n", "\xff\xfe\x00", `{"id": 18446744073709551616, "return": 1}`,
	} {
		f.Add([]byte(s), []byte{0})
		f.Add([]byte(s), []byte{2, 0, 5})
	}
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		whole := observe(t, data, nil)
		cut := observe(t, data, append(slices.Clone(sizes), 0))
		if whole.version != cut.version || whole.end != cut.end || !slices.Equal(whole.events, cut.events) {
			t.Fatalf("%q:\nin one piece %+v\nin pieces of %v %+v", data, whole, sizes, cut)
		}
	})
}
