package provision

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/ext2"
)

func TestChoose(t *testing.T) {
	ssh, none, cloud := debianGuest(), debianGuest(), debianGuest()
	none.SSH = SSH{}
	cloud.CloudInit = true
	cloudOnly := cloud
	cloudOnly.SSH = SSH{}
	noTable := fmt.Errorf("inspecting x: %w", ext2.ErrNoTable)
	ambiguous := fmt.Errorf("inspecting x: %w", &AmbiguousRootError{Image: "x", Candidates: []ext2.Partition{{Number: 1}, {Number: 2}}, Holds: "/etc"})
	const where = "partition 2 (type 83, 59 MiB at 5M) holds the root file system of a system "
	for name, tc := range map[string]struct {
		wanted Method
		facts  Facts
		want   Method
		reason string
		err    string
	}{
		"auto, ssh":                 {MethodAuto, Facts{Guest: ssh}, MethodExt2, where + "with an SSH server", ""},
		"unset is auto":             {"", Facts{Guest: ssh}, MethodExt2, where + "with an SSH server", ""},
		"ext2 before nocloud":       {MethodAuto, Facts{Guest: ssh, HasUserData: true}, MethodExt2, where + "with an SSH server", ""},
		"ext2 and a seed":           {MethodAuto, Facts{Guest: cloud, HasUserData: true}, MethodExt2, where + "with an SSH server; user-data reaches its cloud-init on a seed disk", ""},
		"cloud-init without data":   {MethodAuto, Facts{Guest: cloudOnly}, MethodConsole, where + "without a known SSH server", ""},
		"cloud-init with data":      {MethodAuto, Facts{Guest: cloudOnly, HasUserData: true}, MethodNoCloud, "user-data was given and the guest has cloud-init", ""},
		"no cloud-init with data":   {MethodAuto, Facts{Guest: none, HasUserData: true}, MethodConsole, where + "without a known SSH server", ""},
		"unknown with data":         {MethodAuto, Facts{InspectErr: noTable, HasUserData: true}, MethodNoCloud, "user-data was given and nothing is known of the guest (inspecting x: no partition table and no ext2 file system at offset 0)", ""},
		"unknown":                   {MethodAuto, Facts{InspectErr: noTable}, MethodConsole, "the image can't be edited (inspecting x: no partition table and no ext2 file system at offset 0)", ""},
		"ambiguous":                 {MethodAuto, Facts{InspectErr: ambiguous}, "", "", "choosing how to provision: inspecting x: x: more than one partition could be the root file system"},
		"ext2 wanted":               {MethodExt2, Facts{Guest: none}, MethodExt2, "asked for", ""},
		"ext2 wanted, not possible": {MethodExt2, Facts{InspectErr: noTable}, "", "", "provision: ext2 is not possible: inspecting x: no partition table"},
		"nocloud wanted":            {MethodNoCloud, Facts{InspectErr: noTable}, MethodNoCloud, "asked for", ""},
		"console wanted":            {MethodConsole, Facts{Guest: ssh}, MethodConsole, "asked for", ""},
		"none wanted":               {MethodNone, Facts{Guest: ssh}, MethodNone, "asked for", ""},
		"nonsense":                  {"magic", Facts{Guest: ssh}, "", "", `"magic" is no way to provision: use auto, ext2, nocloud, console or none`},
	} {
		got, reason, err := Choose(tc.wanted, tc.facts)
		if got != tc.want || reason != tc.reason || (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%s: %q, %q, %v", name, got, reason, err)
		}
		if name == "ambiguous" && !errors.Is(err, ErrAmbiguousRoot) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
