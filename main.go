// Hurd-qemu-action boots GNU/Hurd in QEMU and runs a script in it over SSH.
//
// Without arguments it is a GitHub action, which reads its inputs from
// INPUT_* variables. From a shell it takes the same inputs as flags; see
// hurd-qemu-action --help.
package main

//go:generate go test ./internal/config -run TestActionYAML|TestReadme -update

import (
	"fmt"
	"os"

	"github.com/org/hurd-qemu-action/internal/cli"
	"github.com/org/hurd-qemu-action/internal/initproc"
)

// version is set by the linker for releases.
var version string

func main() {
	if initproc.Needed() {
		status, err := initproc.Run("/proc/self/exe", os.Args, os.Environ())
		if err != nil {
			fmt.Fprintf(os.Stderr, "hurd-qemu-action: %v\n", err)
		}
		os.Exit(status)
	}
	c := cli.Command{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Args: os.Args[1:], Environ: os.Environ(), Version: version}
	os.Exit(c.Main())
}
