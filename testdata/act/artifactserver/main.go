// Command artifactserver is act's own artifact server, without a workflow: the
// tests of internal/results upload to it. It prints the address it listens on
// and a token for it, a line each, and ends with its standard input.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nektos/act/pkg/artifacts"
	"github.com/nektos/act/pkg/common"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: artifactserver DIRECTORY")
	}
	stop := artifacts.Serve(context.Background(), os.Args[1], "127.0.0.1", "0")
	defer stop()
	port, err := listening()
	if err != nil {
		log.Fatal(err)
	}
	token, err := common.CreateAuthorizationToken(1, 12, 34)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://127.0.0.1:%d/\n%s\n", port, token)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// listening finds the port that the kernel chose: Serve does not tell, and a
// port picked beforehand could be somebody else's by then.
func listening() (uint64, error) {
	for range 100 {
		sockets, err := ownSockets()
		if err != nil {
			return 0, err
		}
		table, err := os.Open("/proc/self/net/tcp")
		if err != nil {
			return 0, err
		}
		for lines := bufio.NewScanner(table); lines.Scan(); {
			f := strings.Fields(lines.Text()) // number, local address, remote address, state, ..., 9: inode
			if len(f) > 9 && f[3] == "0A" && sockets["socket:["+f[9]+"]"] {
				_ = table.Close()
				_, port, _ := strings.Cut(f[1], ":")
				return strconv.ParseUint(port, 16, 16)
			}
		}
		_ = table.Close()
		time.Sleep(50 * time.Millisecond)
	}
	return 0, fmt.Errorf("act's artifact server does not listen")
}

func ownSockets() (map[string]bool, error) {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	sockets := map[string]bool{}
	for _, e := range list {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			sockets[target] = true
		}
	}
	return sockets, nil
}
