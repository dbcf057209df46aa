package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
)

// verdict is what was found out about KVM.
type verdict struct {
	State  KVMState `json:"state"`
	Reason string   `json:"reason"`
	access Access
}

// verdictFile is the name of the remembered verdict in the cache directory.
const verdictFile = "kvm-verdict.json"

// verdictKey is everything that the outcome of the probe may depend on. The
// boot is among it: a host that was repaired was booted.
type verdictKey struct {
	Boot    string      `json:"boot"`
	Device  uint64      `json:"device"`
	Mode    os.FileMode `json:"mode"`
	EUID    int         `json:"euid"`
	User    User        `json:"user"`
	Binary  identity    `json:"binary"`
	Payload string      `json:"payload"`
}

type keptVerdict struct {
	Key     verdictKey `json:"key"`
	Verdict verdict    `json:"verdict"`
}

// verdictKey is empty where the host's boot or the binary has no identity;
// then nothing is remembered.
func (o AccelOptions) verdictKey(device os.FileInfo) verdictKey {
	boot, err := os.ReadFile(o.BootID)
	if err != nil || strings.TrimSpace(string(boot)) == "" {
		return verdictKey{}
	}
	binary, err := identify(o.Binary)
	if err != nil {
		return verdictKey{}
	}
	number, _ := deviceNumber(device)
	sum := sha256.Sum256(payload())
	return verdictKey{
		Boot: strings.TrimSpace(string(boot)), Device: number, Mode: device.Mode(),
		EUID: os.Geteuid(), User: o.User, Binary: binary, Payload: hex.EncodeToString(sum[:]),
	}
}

func recallVerdict(dir string, key verdictKey) (verdict, bool) {
	var kept keptVerdict
	if key == (verdictKey{}) || readCache(cachePath(dir, verdictFile), &kept) != nil || kept.Key != key {
		return verdict{}, false
	}
	switch kept.Verdict.State {
	case KVMWorks, KVMDead, KVMRefused:
		return kept.Verdict, true
	}
	return verdict{}, false
}
