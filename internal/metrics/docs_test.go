package metrics

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestDocumented holds that docs/metrics.md names every field, and both schemas.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	for _, schema := range []string{Schema, BenchmarkSchema, "`schema`"} {
		if !strings.Contains(doc, schema) {
			t.Errorf("docs/metrics.md does not name %s", schema)
		}
	}
	for _, phase := range order {
		if !strings.Contains(doc, "| `"+string(phase)+"` |") {
			t.Errorf("docs/metrics.md has no row for the phase %s", phase)
		}
	}
	fields := 0
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() {
			return
		}
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields++
			if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, "`boot."+name+"`") {
				t.Errorf("docs/metrics.md does not name %s (%s.%s)", name, typ, f.Name)
			}
			check(f.Type)
		}
	}
	check(reflect.TypeFor[Run]())
	check(reflect.TypeFor[Benchmark]())
	if fields < 80 {
		t.Errorf("only %d fields were seen", fields)
	}
}
