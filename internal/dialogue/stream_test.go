package dialogue

import (
	"fmt"
	"strings"
	"testing"
)

// record is all that a stream tells, in order.
func record(chunks []string) string {
	var b strings.Builder
	var live strings.Builder
	flush := func() {
		if live.Len() > 0 {
			fmt.Fprintf(&b, "live %q\n", live.String())
			live.Reset()
		}
	}
	s := &stream{
		token: []byte("HTOKEN"),
		live:  func(_ int, p []byte) { live.Write(p) },
		ended: func(job, status int) { flush(); fmt.Fprintf(&b, "job %d ended with %d\n", job, status) },
		answered: func(command int, text, status string) {
			fmt.Fprintf(&b, "command %d: %q, %s\n", command, text, status)
		},
	}
	for _, c := range chunks {
		s.write([]byte(c))
	}
	flush()
	return b.String()
}

const someStream = "boot messages\r\n" + `echo "HTOKEN"-b1; id; echo "HTOKEN"-e1 $?` + "\r\nHTOKEN-b1\r\nroot\r\nHTOKEN-e1 0\r\n" +
	`HTOKEN=; echo "HTOKEN"-b2; L 7; echo "HTOKEN"-e2 $?` + "\r\nHTOKEN-l7\r\nHTOKEN-b2\r\nHTOKEN-e2 0\r\n" +
	"one\r\ntwo\rTWO\r\n\xff\x00HTOKE HTHTOKEN=; echo \"HTOKEN\"-b3; echo $d; echo \"HTOKEN\"-e3 $?\r\nHTOKEN-b3\r\nand <=/tmp/x=>\r\nmore\r\nHTOKEN-e3 0\r\n" +
	"three\r\r\nfour\rHTOKEN-x7 130\r\nlate\r\nHTOKEN-x8\r\nHTOKEN-l"

func TestStream(t *testing.T) {
	want := `command 1: "root\r\n", 0
command 2: "", 0
command 3: "and <=/tmp/x=>\r\nmore\r\n", 0
live "one\ntwo\rTWO\n\xff\x00HTOKE HTand more\nthree\r\nfour\r"
job 7 ended with 130
job 8 ended with -1
`
	if got := record([]string{someStream}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// What is too long for an answer is the job's.
	long := strings.Repeat("x", doubtMost+1)
	got := record([]string{"HTOKEN-l7\r\nHTOKEN-b4\r\n" + long + "\r\nHTOKEN-e4 0\r\nHTOKEN-x7 0\r\n"})
	if want := fmt.Sprintf("command 4: %q, 0\nlive %q\njob 7 ended with 0\n", long+"\r\n", long+"\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// FuzzStream: how the bytes are cut into writes makes no difference.
func FuzzStream(f *testing.F) {
	f.Add(someStream, uint16(7), uint16(100))
	f.Add("HTOKEN-l1\r\nHTOKEN-b1\r\n"+strings.Repeat("y\r\n", 300)+"HTOKEN-e1 1\r\n", uint16(1), uint16(600))
	f.Add("HTOKEN-l1\r\nHTOKEN"+strings.Repeat("z", echoMost+20)+"\r\n", uint16(9), uint16(echoMost))
	f.Fuzz(func(t *testing.T, text string, a, b uint16) {
		want := record([]string{text})
		i, j := min(int(a), len(text)), min(int(b), len(text))
		if i > j {
			i, j = j, i
		}
		if got := record([]string{text[:i], text[i:j], text[j:]}); got != want {
			t.Fatalf("%q cut at %d and %d:\n%s\nwhole:\n%s", text, i, j, got, want)
		}
		if got := record(strings.Split(text, "")); got != want && len(text) == len([]rune(text)) {
			t.Fatalf("%q, one by one:\n%s\nwhole:\n%s", text, got, want)
		}
	})
}
