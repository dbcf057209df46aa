package lifecycle

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/selftest"
)

// StoreDir is the image store below a cache directory.
func StoreDir(cache string) string { return filepath.Join(cache, "images") }

// NewStore gives the image store in a directory, with the selftest guest in
// reach and the proxy that the environment names.
func NewStore(dir string, progress func(image.Report)) *image.Store {
	return &image.Store{
		Dir:      dir,
		Embedded: map[string]func() (io.ReadCloser, int64, error){"selftest": openSelftest},
		Client:   &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}},
		Progress: progress,
	}
}

func openSelftest() (io.ReadCloser, int64, error) {
	f, info, err := selftest.Open()
	return embedded{f, info.SHA256}, int64(info.Size), err
}

// embedded is an image whose hash is known. Reading all of it for that, in every
// run, would keep it in memory.
type embedded struct {
	io.ReadCloser
	sha256 string
}

// SHA256 is what package image asks for.
func (e embedded) SHA256() string { return e.sha256 }

// want is what the image must match, and what is needed to get it.
func (r *run) want() image.Want {
	c := r.config
	return image.Want{
		Arch: c.Arch, Verify: image.Verify(c.ImageVerify), SHA256: c.ImageSHA256, SHA512: c.ImageSHA512,
		Signature: c.ImageSignature, Key: c.ImageKey, Mirror: c.ImageMirror,
		Token: c.Token, API: r.Host.API, Run: image.Run{Repository: r.Host.Repository, ID: r.Host.RunID},
	}
}

// progressEvery is how often a log that nobody watches live gets a line.
const progressEvery = 10 * time.Second

// Progress turns the store's reports into lines for a log (one at most every
// ten seconds) or a line that changes on a terminal. Notes are never left out.
func Progress(terminal bool, line func(string), redraw func(string)) func(image.Report) {
	var last time.Time
	var step image.Step
	return func(p image.Report) {
		text := strings.TrimSpace(p.String())
		switch {
		case p.Note != "":
			line(text)
		case terminal:
			redraw(strings.TrimSpace(p.Bar()))
		case p.Step != step || time.Since(last) >= progressEvery:
			last, step = time.Now(), p.Step
			line(text)
		}
	}
}

func (r *run) progress() func(image.Report) {
	return Progress(r.Host.Progress, func(text string) { r.Log.Printf("%s", text) }, r.Log.Redraw)
}
