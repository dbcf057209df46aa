// Command udpecho sends every datagram on port 8081 back, in capitals. It is
// what the tests run in a Linux guest that has no such service.
package main

import (
	"bytes"
	"os"
	"syscall"
)

func main() {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: 8081})
	}
	buffer := make([]byte, 512)
	for err == nil {
		var n int
		var from syscall.Sockaddr
		if n, from, err = syscall.Recvfrom(fd, buffer, 0); err == nil {
			err = syscall.Sendto(fd, bytes.ToUpper(buffer[:n]), 0, from)
		}
	}
	os.Stderr.WriteString(err.Error() + "\n")
}
