package qemu

import (
	"io/fs"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"
)

func TestIdentity(t *testing.T) {
	const everyone = "         0          0 4294967295\n"
	const rootless = "         0       1000          1\n"
	nobodyCredential := &syscall.Credential{Uid: nobody, Gid: nobody}
	for _, tc := range []struct {
		name       string
		options    StartOptions
		euid       int
		uidMap     string
		credential *syscall.Credential
		drop       *Drop
	}{
		{"root", StartOptions{}, 0, everyone, nobodyCredential, nil},
		{"root without user namespaces", StartOptions{}, 0, "", nobodyCredential, nil},
		{"a user", StartOptions{}, 1000, everyone, nil, nil},
		{"a user, late", StartOptions{Access: Access{Late: true}}, 1000, everyone, nil, nil},
		{"root of a rootless container", StartOptions{}, 0, rootless, nil, nil},
		{"root of one with many users", StartOptions{}, 0, rootless + "1 100000 65536\n", nobodyCredential, nil},
		{"another user", StartOptions{User: User{7, 8}}, 0, everyone, &syscall.Credential{Uid: 7, Gid: 8}, nil},
		{"with a group", StartOptions{Access: Access{Groups: []uint32{106}}}, 0, everyone,
			&syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{106}}, nil},
		{"late", StartOptions{Access: Access{Late: true}}, 0, everyone, nil, &Drop{User: Nobody()}},
		{"late, QEMU 10", StartOptions{Access: Access{Late: true}, Features: &Features{RunWith: true}}, 0, everyone, nil, &Drop{User: Nobody(), RunWith: true}},
	} {
		credential, drop := tc.options.identity(tc.euid, tc.uidMap)
		if !reflect.DeepEqual(credential, tc.credential) || !reflect.DeepEqual(drop, tc.drop) {
			t.Errorf("%s: %+v, %+v; want %+v, %+v", tc.name, credential, drop, tc.credential, tc.drop)
		}
	}
}

// deviceInfo is a device node as os.Stat would show it.
type deviceInfo struct {
	mode fs.FileMode
	gid  uint32
}

func (d deviceInfo) Name() string       { return "kvm" }
func (d deviceInfo) Size() int64        { return 0 }
func (d deviceInfo) Mode() fs.FileMode  { return d.mode | os.ModeDevice | os.ModeCharDevice }
func (d deviceInfo) ModTime() time.Time { return time.Time{} }
func (d deviceInfo) IsDir() bool        { return false }
func (d deviceInfo) Sys() any           { return &syscall.Stat_t{Gid: d.gid} }

func TestAccessTo(t *testing.T) {
	old, recent := &Features{}, &Features{KVMDevice: true}
	for _, tc := range []struct {
		name     string
		device   deviceInfo
		euid     int
		features *Features
		want     Access
	}{
		{"for everyone", deviceInfo{0o666, 106}, 0, old, Access{}},
		{"not root", deviceInfo{0o660, 106}, 1000, old, Access{}},
		{"for a group", deviceInfo{0o660, 106}, 0, old, Access{Groups: []uint32{106}}},
		{"for a group, recent QEMU", deviceInfo{0o660, 106}, 0, recent, Access{Groups: []uint32{106}}},
		{"for root's group, which is not given away", deviceInfo{0o660, 0}, 0, recent, Access{Open: "/dev/kvm"}},
		{"for root only", deviceInfo{0o600, 0}, 0, recent, Access{Open: "/dev/kvm"}},
		{"for root only, old QEMU", deviceInfo{0o600, 0}, 0, old, Access{Late: true}},
		{"readable only", deviceInfo{0o664, 0}, 0, old, Access{Late: true}},
	} {
		if got := accessTo(tc.device, "/dev/kvm", tc.euid, tc.features); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}
