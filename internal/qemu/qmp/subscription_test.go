package qmp

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestEvents(t *testing.T) {
	c := connected(t, func(p *peer) {
		r := p.expect("system_reset")
		p.send(`{"timestamp": {"seconds": 1795444694, "microseconds": 47803}, "event": "RESET", "data": {"guest": false}}`)
		p.send(`{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "STOP"}`)
		p.reply(r, "{}")
	})
	all, stops := c.Subscribe(), c.Subscribe("STOP", "RESUME")
	if err := c.Execute(deadline(t), "system_reset", nil, nil); err != nil {
		t.Fatal(err)
	}
	e := <-all.Events()
	if e.Name != "RESET" || string(e.Data) != `{"guest": false}` || !e.Time.Equal(time.Unix(1795444694, 47803000)) {
		t.Errorf("got %+v", e)
	}
	if e := <-all.Events(); e.Name != "STOP" || e.Data != nil || !e.Time.IsZero() {
		t.Errorf("got %+v; want STOP without data and time", e)
	}
	if e := <-stops.Events(); e.Name != "STOP" {
		t.Errorf("got %+v; want STOP only", e)
	}
	all.Close()
	all.Close()
	if _, open := <-all.Events(); open {
		t.Error("a closed subscription still delivers")
	}
	_ = c.Close()
	if _, open := <-stops.Events(); open {
		t.Error("a subscription outlives its connection")
	}
	if _, open := <-c.Subscribe().Events(); open {
		t.Error("an ended connection still delivers")
	}
}

// TestSlowConsumer pins that replies pass a full queue, and that the oldest
// events go.
func TestSlowConsumer(t *testing.T) {
	const extra = 10
	c := connected(t, func(p *peer) {
		r := p.expect("query-status")
		for i := range eventQueue + extra {
			p.event(fmt.Sprintf("EVENT_%d", i))
		}
		p.reply(r, "{}")
	})
	s := c.Subscribe()
	if err := c.Execute(deadline(t), "query-status", nil, nil); err != nil {
		t.Fatalf("a reply behind unread events: %v", err)
	}
	if s.Dropped() != extra {
		t.Errorf("Dropped = %d, want %d", s.Dropped(), extra)
	}
	for i := extra; i < eventQueue+extra; i++ {
		if e := <-s.Events(); e.Name != fmt.Sprintf("EVENT_%d", i) {
			t.Fatalf("got %s, want EVENT_%d", e.Name, i)
		}
	}
}

// TestEventsOutliveTheConnection pins that what was queued can still be read.
func TestEventsOutliveTheConnection(t *testing.T) {
	c := connected(t, func(p *peer) {
		p.expect("quit")
		p.event("SHUTDOWN")
		_ = p.conn.Close()
	})
	s := c.Subscribe()
	if err := c.Execute(deadline(t), "quit", nil, nil); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("err = %v; want the end of the connection", err)
	}
	if e, open := <-s.Events(); !open || e.Name != "SHUTDOWN" {
		t.Errorf("got %+v, %v; want SHUTDOWN", e, open)
	}
	if _, open := <-s.Events(); open {
		t.Error("the subscription did not end")
	}
}
