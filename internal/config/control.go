package config

import (
	"regexp"
	"strconv"
	"strings"
)

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
