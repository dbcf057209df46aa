package qemu

import (
	"bytes"
	"context"
	_ "embed" // for the payload
	"errors"
	"strings"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// payloadBinary is payload/payload.S, assembled; a test assembles it again.
//
//go:embed payload/payload.bin
var payloadBinary string

func payload() []byte { return []byte(payloadBinary) }

// What the payload writes to the debug-exit port when all went well, and what
// QEMU's exit status then is.
const (
	payloadOK     = 0x35
	payloadStatus = payloadOK<<1 | 1
)

// firmwareSize is the smallest firmware that QEMU takes.
const firmwareSize = 64 << 10

// payloadFailure tells how the payload did not work.
type payloadFailure struct {
	timeout bool   // it did not end
	ran     bool   // it ended, in another way than it should
	status  int    // QEMU's exit status
	stderr  string // what QEMU said
}

// runPayload boots the payload instead of a firmware; nil means that it has
// run and was content.
func runPayload(ctx context.Context, o AccelOptions, accel Accel, access Access) *payloadFailure {
	return runFirmware(ctx, o, accel, access, payload())
}

// runFirmware boots code, which ends where a firmware image ends.
func runFirmware(ctx context.Context, o AccelOptions, accel Accel, access Access, code []byte) *payloadFailure {
	errLate := errors.New("the payload did not end")
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, errLate)
	defer cancel()
	image := bytes.Repeat([]byte{0xff}, firmwareSize-len(code))
	spec := Spec{
		Name:      "probe",
		Hardware:  Hardware{Machine: o.Features.Versioned("pc"), CPUModel: "qemu64", CPUs: 1, Memory: 8 * units.MiB},
		Accel:     accel,
		Firmware:  Blob{Data: append(image, code...)},
		DebugExit: true,
	}
	var files inheritance
	defer files.close()
	options := StartOptions{Binary: o.Binary, Features: o.Features, User: o.User, Access: access}
	cmd, err := options.command(ctx, spec, &files)
	if err != nil {
		return &payloadFailure{status: -1, stderr: err.Error()}
	}
	return judge(ctx, errLate, process.Run(ctx, cmd))
}

// payloadSteps is how many checks the payload can fail.
const payloadSteps = 5

// judge reads an ending. The payload never ends with status 0, so that even
// success is an error to package process.
func judge(ctx context.Context, errLate, err error) *payloadFailure {
	var ended *process.Error
	switch {
	case err == nil:
		return &payloadFailure{ran: true} // the guest reset itself
	case errors.As(err, &ended) && ended.Status == payloadStatus:
		return nil
	case errors.Is(err, errLate):
		return &payloadFailure{timeout: true, status: -1}
	case ended == nil || ended.Status == -1 || ctx.Err() != nil:
		return &payloadFailure{status: -1, stderr: err.Error()}
	case ended.Status > 1 && ended.Status <= payloadSteps<<1|1:
		return &payloadFailure{ran: true, status: ended.Status}
	}
	return &payloadFailure{status: ended.Status, stderr: strings.TrimSpace(ended.Stderr)}
}
