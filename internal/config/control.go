package config

import (
	"net"
	"regexp"
	"strconv"
	"strings"
)

// control reads the inputs that are about driving the machine and looking into it.
func (p *parser) control(c *Config) {
	c.ReadyPattern = p.readyPattern()
	c.Forward = p.in.Forward
	c.Network = p.in.Network
	c.Transport = p.in.Transport
	c.ConsoleScript = p.textOrFile("console-script", p.in.ConsoleScript)
	c.SerialPort = p.serialPort()
	c.QMP = p.textOrFile("qmp", p.in.QMP)
	c.Debug = p.in.Debug
	c.DebugTimeout = p.duration("debug-timeout", p.in.DebugTimeout)
	c.DebugKeys = p.publicKeys("debug-key", p.in.DebugKey)
	c.DebugTunnel = p.debugTunnel()
	c.HugePages = p.in.HugePages == "true"
	c.CPUAffinity = strings.TrimSpace(p.in.CPUAffinity)
	c.DiskCache = p.in.DiskCache
	c.DiskAIO = p.in.DiskAIO
	c.QEMUTrace = strings.TrimSpace(p.in.QEMUTrace)
	c.QEMUArgs = p.in.QEMUArgs
	c.Benchmark = p.benchmark()
}

// readyPattern is matched against lines of the console, one by one.
func (p *parser) readyPattern() *regexp.Regexp {
	text := p.in.ReadyPattern
	if strings.TrimSpace(text) == "" {
		return nil
	}
	re, err := regexp.Compile(text)
	switch {
	case err != nil:
		p.add("ready-pattern", text, "is not a regular expression: "+err.Error(), "write it as Go does (RE2), such as login: or ^ready$")
	case re.MatchString(""):
		p.add("ready-pattern", text, "matches every line", "write what only the line of a guest that is up has, such as login:")
	}
	return re
}

// serialPort reads "5555" or "5555 telnet".
func (p *parser) serialPort() SerialPort {
	words := strings.Fields(p.in.SerialPort)
	if len(words) == 0 {
		return SerialPort{}
	}
	s := SerialPort{Set: true}
	n, err := strconv.Atoi(words[0])
	bad := err != nil || n < 0 || n > 65535
	s.Port = n
	switch {
	case len(words) == 2 && words[1] == "telnet":
		s.Telnet = true
	case len(words) == 2 && words[1] == "raw":
	case len(words) > 1:
		bad = true
	}
	if bad {
		p.add("serial-port", p.in.SerialPort, "is not a port", "write a TCP port from 0 (a free one) to 65535, and telnet behind it for a telnet client, such as 5555 telnet")
	}
	return s
}

func (p *parser) benchmark() int {
	if p.in.Benchmark == "" {
		return 0
	}
	return p.number("benchmark", p.in.Benchmark, maxBenchmark)
}

// sshPort is the port of an SSH server that is named without one.
const sshPort = "22"

// debugTunnel reads user@host or user@host:port, with the keys that it needs.
func (p *parser) debugTunnel() Tunnel {
	text := strings.TrimSpace(p.in.DebugTunnel)
	if text == "" {
		return Tunnel{}
	}
	user, addr, ok := strings.Cut(text, "@")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = strings.Trim(addr, "[]"), sshPort
	}
	if n, err := strconv.Atoi(port); !ok || !userName.MatchString(user) || host == "" || strings.ContainsAny(host, " \n/@") || err != nil || n < 1 || n > 65535 {
		p.add("debug-tunnel", text, "is not an SSH server", "write user@host or user@host:port")
	}
	for _, f := range []struct{ name, value, what string }{
		{"debug-tunnel-key", p.in.DebugTunnelKey, "the private key that logs in to the server of debug-tunnel"},
		{"debug-tunnel-host-key", p.in.DebugTunnelHostKey, "the host key that the server of debug-tunnel has: no host key is trusted unseen"},
		{"debug-key", p.in.DebugKey, "a public key of yours, for the guest at the other end of debug-tunnel"},
	} {
		if strings.TrimSpace(f.value) == "" {
			p.add(f.name, "", "is missing", "give "+f.what)
		}
	}
	return Tunnel{
		User: user, Addr: net.JoinHostPort(host, port),
		Signer: p.privateKey("debug-tunnel-key", p.in.DebugTunnelKey), HostKeys: p.publicKeys("debug-tunnel-host-key", p.in.DebugTunnelHostKey),
	}
}
