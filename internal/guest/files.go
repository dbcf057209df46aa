package guest

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed" // the scripts that run in the guest
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"
)

//go:embed scripts/setup.sh
var setupScript string

//go:embed scripts/collect.sh
var collectScript string

// FilesVariable is the shell variable that holds the path of the directory of
// Script.Files while Script.Env runs. The script itself does not have it.
const FilesVariable = "hurd_files"

// A File is made for a script in the guest.
type File struct {
	Name    string // small letters, digits, _, - and dots; one that ends with / is a directory
	Content []byte

	// Collect is how many bytes of it are fetched when the script has ended. 0:
	// it is of no interest then.
	Collect int64
}

var fileName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*/?$`)

// Collected is what a script left in a file.
type Collected struct {
	Content []byte
	Size    int64 // of the whole file; Content is its beginning, of no more than File.Collect bytes
}

// tmpTried are where hello.sh looks for a directory for temporary files.
const tmpTried = "$TMPDIR, /tmp, /var/tmp, $HOME and /dev/shm"

// An upload is what makes a script's directory and starts what is in it.
type upload struct {
	filling
	dir, line   string // the line starts the script
	directories []string
}

// setUp is the upload of a script, its files and the programs around it to a directory.
func setUp(s Script, dir, line string) (*upload, error) {
	u := &upload{dir: dir, line: line, directories: []string{"files"}}
	u.file("run.sh", []byte(compact(runScript)))
	u.file("stop.sh", []byte(compact(stopScript)))
	u.file("script.sh", []byte(s.Text))
	if s.User != "" {
		if problem := userProblem(s.User); problem != "" {
			return nil, &UserError{User: s.User, Why: problem}
		}
		u.file("become.sh", []byte(compact(becomeScript)))
	}
	if len(s.Env) > 0 {
		u.file("env", s.Env)
	}
	for _, file := range s.Files {
		switch name, isDir := strings.CutSuffix("files/"+file.Name, "/"); {
		case !fileName.MatchString(file.Name):
			return nil, fmt.Errorf("a script can't have a file of the name %q", file.Name)
		case isDir:
			u.directories = append(u.directories, name)
		default:
			u.file(name, file.Content)
		}
	}
	if len(s.Shell) > 0 {
		u.step("chmod 700 script.sh") // the shell may be the script itself
	}
	u.step("ready=yes") // and nothing was cut off
	return u, nil
}

// args are those of setup.sh.
func (u *upload) args(offset int) []string {
	args := []string{u.dir, strconv.Itoa(offset), u.line}
	for _, name := range u.directories {
		args = append(args, u.dir+"/"+name)
	}
	return args
}

// command is the upload in a session of its own.
func (u *upload) command() Command {
	return Command{
		Script: setupScript, Args: u.args(u.large.Len() + 1),
		Stdin: io.MultiReader(bytes.NewReader(u.large.Bytes()), strings.NewReader(u.program.String()+"\n")),
	}
}

// text is the upload as a program for a shell that waits for one: a single
// command, so that none of it is run if it is cut off. There is none of large files.
func (u *upload) text() (program string, ok bool) {
	return "{\nset -- " + quoteAll(u.args(0)...) + "\nfill() {\n" + u.program.String() + "\n}\n" + compact(setupScript) + "\n}\n", u.large.Len() == 0
}

// noDirectory is the status of setup.sh when the script's directory can't be made.
const noDirectory = 73

// privateDir is a new name for a script's directory in one of the guest's.
func privateDir(tmp string) string {
	return path.Join(tmp, "hurd-qemu-action."+strings.ToLower(rand.Text()[:nameLength]))
}

// noiseMost is how much a login shell may print of its own before our programs do.
const noiseMost = 64 << 10

// collect reads the record of the script's end and its files, keeps these in r,
// and removes its directory. What has come in time is kept with an error too.
// With kill it ends the script's processes first.
func (r *scriptRun) collect(ctx context.Context, kill bool) (record string, err error) {
	mark := rand.Text()
	args := []string{r.dir, mark}
	out := &limited{room: noiseMost}
	var wanted []File
	for _, f := range r.script.Files {
		if f.Collect > 0 && !strings.HasSuffix(f.Name, "/") {
			wanted = append(wanted, f)
			args = append(args, f.Name, strconv.FormatInt(f.Collect, 10))
			out.room += f.Collect + int64(2*len(mark))
		}
	}
	script := collectScript
	if kill {
		script = `sh "$1/stop.sh" "$1" KILL` + "\n" + script
	}
	_, err = r.client.Run(ctx, Command{Script: script, Args: args, Stdout: out})
	record, files, ok := parseCollected(out.buf.Bytes(), mark, wanted)
	if !ok && err == nil {
		err = errors.New("the guest has not told")
	}
	r.files = files
	return record, err
}

// parseCollected reads what collect.sh prints, as far as it has come.
func parseCollected(text []byte, mark string, wanted []File) (record string, files map[string]Collected, ok bool) {
	parts := bytes.Split(text, []byte("\n"+mark+"\n"))
	if len(parts) < 3 {
		return "", nil, false
	}
	files = map[string]Collected{}
	for i, part := range parts[2 : len(parts)-1] { // the last one may not be whole
		head, content, _ := bytes.Cut(part, []byte("\n"))
		size, err := strconv.ParseInt(string(head), 10, 64)
		if i < len(wanted) && err == nil && size >= 0 {
			size = max(size, int64(len(content)))
			files[wanted[i].Name] = Collected{Content: content[:min(int64(len(content)), wanted[i].Collect)], Size: size}
		}
	}
	return strings.TrimSpace(string(parts[1])), files, true
}

// limited keeps the beginning of what is written to it.
type limited struct {
	buf  bytes.Buffer
	room int64
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(l.room, int64(len(p)))
	l.room -= n
	l.buf.Write(p[:n])
	return len(p), nil
}
