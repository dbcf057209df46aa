package serial

// The bytes of telnet that are used here.
// Source: RFC 854 (commands), RFC 856 (binary), RFC 857 (echo), RFC 858 (go ahead).
const (
	telnetSE   = 240
	telnetIP   = 244 // interrupt process
	telnetSB   = 250
	telnetWill = 251
	telnetWont = 252
	telnetDo   = 253
	telnetDont = 254
	telnetIAC  = 255

	optionBinary = 0
	optionEcho   = 1
	optionSGA    = 3 // suppress go ahead
)

// Telnet is the server's side of one telnet connection to a serial line: it
// echoes nothing itself (the guest does) and wants characters as they are typed.
// The zero value is ready for use. How the bytes are cut makes no difference.
type Telnet struct {
	state     telnetState
	command   byte // of a negotiation in progress
	afterCR   bool // the last character that came was a carriage return
	wroteCR   bool // the last that was encoded was one
	binaryIn  bool // the client sends all bytes as they are
	binaryOut bool // the client takes them so
}

type telnetState int

const (
	telnetData     telnetState = iota
	telnetCommand              // after IAC
	telnetOption               // after IAC and WILL, WONT, DO or DONT
	telnetSub                  // within a subnegotiation
	telnetSubAfter             // after IAC within one
)

// Greeting is what the server says first: it will echo, nobody goes ahead, and
// all bytes are to pass.
func (t *Telnet) Greeting() []byte {
	return []byte{
		telnetIAC, telnetWill, optionEcho, telnetIAC, telnetWill, optionSGA, telnetIAC, telnetDo, optionSGA,
		telnetIAC, telnetWill, optionBinary, telnetIAC, telnetDo, optionBinary,
	}
}

// Decode takes what the client sends, and returns what it types and what is to
// be answered. A line's end is a carriage return, as the key makes it.
func (t *Telnet) Decode(p []byte) (data, reply []byte) {
	for _, b := range p {
		switch t.state {
		case telnetData:
			data = t.character(data, b)
		case telnetCommand:
			t.state = telnetData
			switch b {
			case telnetIAC:
				data = append(data, b)
				t.afterCR = false
			case telnetIP:
				data = append(data, 0x03) // what the key for it types
			case telnetSB:
				t.state = telnetSub
			case telnetWill, telnetWont, telnetDo, telnetDont:
				t.state, t.command = telnetOption, b
			}
		case telnetOption:
			t.state = telnetData
			reply = append(reply, t.negotiate(t.command, b)...)
		case telnetSub:
			if b == telnetIAC {
				t.state = telnetSubAfter
			}
		case telnetSubAfter:
			if t.state = telnetSub; b == telnetSE {
				t.state = telnetData
			}
		}
	}
	return data, reply
}

// character takes a byte that is no command. Unless all bytes are sent as they
// are, a carriage return is followed by a newline or a NUL, which is no character.
func (t *Telnet) character(data []byte, b byte) []byte {
	after := t.afterCR
	t.afterCR = false
	switch {
	case b == telnetIAC:
		t.state, t.afterCR = telnetCommand, after
	case !t.binaryIn && after && (b == 0 || b == '\n'):
	default:
		t.afterCR = b == '\r'
		data = append(data, b)
	}
	return data
}

// negotiate takes the client's word on an option. What was offered or asked for
// in the greeting needs no further word; everything else is refused.
func (t *Telnet) negotiate(command, option byte) []byte {
	switch command {
	case telnetDo, telnetDont:
		switch option {
		case optionBinary:
			t.binaryOut = command == telnetDo
		case optionEcho, optionSGA:
		default:
			if command == telnetDo {
				return []byte{telnetIAC, telnetWont, option}
			}
		}
	case telnetWill, telnetWont:
		switch option {
		case optionBinary:
			t.binaryIn = command == telnetWill
		case optionSGA:
		default:
			if command == telnetWill {
				return []byte{telnetIAC, telnetDont, option}
			}
		}
	}
	return nil
}

// Encode writes what the guest sends for the client.
func (t *Telnet) Encode(p []byte) []byte {
	out := make([]byte, 0, len(p)+8)
	for _, b := range p {
		if t.wroteCR && !t.binaryOut && b != '\n' && b != 0 {
			out = append(out, 0) // a carriage return alone
		}
		if b == telnetIAC {
			out = append(out, telnetIAC)
		}
		out = append(out, b)
		t.wroteCR = b == '\r'
	}
	return out
}
