package snapshot

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TestKeyString pins what entries of a Format are called: a change makes all
// that exist unfindable, and needs another Format.
func TestKeyString(t *testing.T) {
	const want = "hurd-qemu-action-snapshot-v1-pc-i440fx-7.2-tcg-bef6a60296672fb4ac5f34380323e944"
	if got := testKey().String(); got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	odd := testKey()
	odd.Machine, odd.Accel = strings.Repeat("../a,b ", 50), "x,y/z"
	for _, k := range []Key{testKey(), {}, odd} {
		if s := k.String(); !validName(s) || strings.ContainsAny(s, ",/ ") {
			t.Errorf("%q is no name for an entry", s)
		}
	}
	for _, name := range []string{"", "..", "x", Prefix + "-v1/../../etc", Prefix + "-v1,", Prefix + "-v" + strings.Repeat("1", 100)} {
		if validName(name) {
			t.Errorf("%q is valid", name)
		}
	}
}

// TestKeyFields holds that every field counts, and is named when it differs.
func TestKeyFields(t *testing.T) {
	base := testKey()
	seen := map[string]string{base.String(): "none"}
	for i := range reflect.TypeFor[Key]().NumField() {
		field := reflect.TypeFor[Key]().Field(i)
		if field.Name == "HostCPU" {
			continue // counts only with some models: TestHostCPU
		}
		k := base
		switch v := reflect.ValueOf(&k).Elem().Field(i); v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Slice:
			v.Set(v.Slice(0, v.Len()-1))
		default:
			t.Fatalf("%s has a kind of its own", field.Name)
		}
		if other, ok := seen[k.String()]; ok {
			t.Errorf("a changed %s has the key of a changed %s", field.Name, other)
		}
		seen[k.String()] = field.Name
		err := Compatible(k, base)
		var e *IncompatibleError
		if !errors.Is(err, ErrIncompatible) || !errors.As(err, &e) || len(e.Differences) != 1 {
			t.Errorf("a changed %s: %v", field.Name, err)
		}
	}
}

// TestKeyFraming holds that values can't be moved from one field to another.
func TestKeyFraming(t *testing.T) {
	a, b := testKey(), testKey()
	a.Base, a.Provision = `x","y`, ""
	b.Base, b.Provision = "x", `y","`
	if a.String() == b.String() {
		t.Error("two keys have the same string")
	}
}

func TestCompatible(t *testing.T) {
	kvm, tcg := testKey(), testKey()
	kvm.Accel = KVM
	host := kvm
	host.CPUModel, host.HostCPU = "host,-svm", "EPYC"
	other := host
	other.HostCPU = "Xeon"
	max := tcg
	max.CPUModel = "max"
	moved := tcg
	moved.HostCPU = "Xeon"
	big := kvm
	big.Memory = 3 * units.GiB
	for _, tc := range []struct {
		name          string
		saved, wanted Key
		says          string // "" for compatible
	}{
		{"the same", tcg, tcg, ""},
		{"TCG under KVM", tcg, kvm, ""},
		{"KVM under TCG", kvm, tcg, `its accelerator is "kvm", wanted is "tcg"`},
		{"the same host", host, host, ""},
		{"another host", other, host, `its host CPU is "Xeon", wanted is "EPYC"`},
		{"another host under TCG", moved, tcg, ""},
		{"max of TCG under KVM", max, func() Key { k := max; k.Accel = KVM; return k }(), `its accelerator is "tcg"`},
		{"two things", func() Key { k := tcg; k.QEMU = "10.0.2"; k.NIC = "e1000"; return k }(), tcg,
			`does not fit: its QEMU is "10.0.2", wanted is "7.2.22"; its network card is "e1000", wanted is "rtl8139"`},
		{"the nearest is named", tcg, big, `does not fit: its memory is "4M", wanted is "3G"`},
		{"a long value", func() Key { k := tcg; k.Base = strings.Repeat("x", 5000); return k }(), tcg, `xxx..."`},
	} {
		err := Compatible(tc.saved, tc.wanted)
		if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || len(err.Error()) > 400) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
	}
}

func TestUsable(t *testing.T) {
	k := testKey()
	if got := k.Usable(); !reflect.DeepEqual(got, []Key{k}) {
		t.Errorf("under TCG: %v", got)
	}
	kvm := k
	kvm.Accel = KVM
	if got := kvm.Usable(); !reflect.DeepEqual(got, []Key{kvm, k}) {
		t.Errorf("under KVM: %v", got)
	}
}

func TestExplain(t *testing.T) {
	lines := strings.Join(testKey().Explain(), "\n")
	for _, want := range []string{"QEMU: 7.2.22\n", "memory: 4M\n", "disk sizes: 1G+64M\n", "forwarded ports: 22\n", "HPET: on\n"} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
	if strings.Contains(lines, "prepare script") {
		t.Error("what is empty is listed")
	}
	strange := testKey()
	strange.CPUModel, strange.Base = "a\x1b[31m\nb\u202ec\xff\r", strings.Repeat("ü", 1<<20)
	text := strings.Join(strange.Explain(), "|")
	if !strings.Contains(text, "|CPU model: a?[31m?b?c??|") || !strings.Contains(text, "üü...|") || strings.ContainsAny(text, "\x1b\n\r\u202e") || len(text) > 2000 {
		t.Errorf("a stranger's key is shown as %.3000q", text)
	}
}
