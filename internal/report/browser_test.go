package report

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	browserlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var shots = flag.String("shots", "", "a directory for pictures of the pages, for people")

// startBrowser starts a headless Chromium.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: starts a browser")
	}
	binary, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatal("chromium is missing (apt-get install chromium), and E2E_REQUIRED=1")
	} else if err != nil {
		t.Skip("chromium is missing: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("headless", "new"), chromedp.Flag("hide-scrollbars", false),
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(60*time.Second))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	return ctx
}

// complaints are what a browser says against a page.
type complaints struct {
	mu   sync.Mutex
	list []string
}

func (c *complaints) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf(format, args...))
}

// listen collects errors, and requests for anything but the page itself.
func listen(ctx context.Context, t *testing.T, page string) *complaints {
	t.Helper()
	c := &complaints{}
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			c.add("exception: %s", e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			c.add("console: %s", e.Type)
		case *browserlog.EventEntryAdded:
			c.add("%s: %s", e.Entry.Level, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			if e.Request.URL != page && !strings.HasPrefix(e.Request.URL, "data:image/png;base64,") {
				c.add("request: %s", e.Request.URL)
			}
		}
	})
	if err == nil {
		_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	}
	if err == nil {
		_, err = chromedp.Call(ctx, browserlog.Enable, cdp.Empty{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// window is what a page is looked at through.
type window struct {
	name          string
	width, height int64
	phone         bool
	scheme        string // light or dark
}

var windows = []window{
	{"phone-light", 390, 844, true, "light"}, {"phone-dark", 390, 844, true, "dark"},
	{"desktop-light", 1280, 900, false, "light"}, {"desktop-dark", 1280, 900, false, "dark"},
	{"small-light", 320, 568, true, "light"},
}

func (w window) open(ctx context.Context, page string) error {
	_, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: w.width, Height: w.height, DeviceScaleFactor: 2, Mobile: w.phone,
	})
	if err != nil {
		return err
	}
	_, err = chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: w.scheme}},
	})
	if err != nil {
		return err
	}
	return chromedp.Do(ctx, chromedp.Navigate(page))
}

// ask evaluates an expression, and waits for it when it is a promise.
func ask[T any](ctx context.Context, t *testing.T, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// pages writes the pages of the cases into files and gives their addresses.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := cases(t)
	all["big"] = big(t)
	all["hostile"] = everywhere(hostile[0] + strings.Repeat("W", 400))
	files := map[string]string{}
	dir := t.TempDir()
	for name, r := range all {
		path := filepath.Join(dir, name+".html")
		if err := os.WriteFile(path, []byte(pageOf(t, r)), 0o644); err != nil {
			t.Fatal(err)
		}
		files[name] = (&url.URL{Scheme: "file", Path: path}).String()
	}
	return files
}

// inPage are the questions that a page is asked in the browser.
const inPage = `(() => {
  const problems = [];
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) problems.push("the page is " + root.scrollWidth + " wide in a window of " + innerWidth);
  for (const e of document.querySelectorAll("body *")) {
    const box = e.getBoundingClientRect();
    if (box.width > 0 && box.right > innerWidth + 1) problems.push(e.tagName + " reaches to " + box.right + ": " + e.textContent.slice(0, 40));
  }
  for (const path of document.querySelectorAll("path.curve")) {
    const inner = path.getBBox(), area = path.ownerSVGElement.viewBox.baseVal;
    if (!(path.getTotalLength() > 0)) problems.push("an empty curve");
    if (inner.x < 0 || inner.y < 0 || inner.x + inner.width > area.width || inner.y + inner.height > area.height) problems.push("a curve outside of its chart");
  }
  for (const mark of document.querySelectorAll("svg.chart circle, svg.chart rect.band")) {
    const inner = mark.getBBox(), area = mark.ownerSVGElement.viewBox.baseVal;
    if (inner.x < 0 || inner.y < 0 || inner.x + inner.width > area.width || inner.y + inner.height > area.height - 30) problems.push("a mark outside of its chart");
  }
  for (const text of document.querySelectorAll("svg.chart text")) {
    const inner = text.getBBox(), area = text.ownerSVGElement.viewBox.baseVal;
    if (inner.x < 0 || inner.x + inner.width > area.width) problems.push("a label outside of its chart: " + text.textContent);
  }
  const channels = (color) => { const n = color.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => { const v = c[i] / 255; return sum + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const seen = new Set();
  let texts = 0;
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim() !== "") || e.tagName === "SCRIPT") continue;
    texts++;
    const style = getComputedStyle(e);
    const front = channels(e.closest("svg.chart") ? style.fill : style.color);
    let ground = e;
    while (ground && channels(getComputedStyle(ground).backgroundColor)[3] < 1) ground = ground.parentElement;
    const back = ground ? channels(getComputedStyle(ground).backgroundColor) : [255, 255, 255, 1];
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const what = e.tagName + "." + (e.getAttribute("class") || "") + " " + front + " on " + back;
    if (ratio < 4.5 && !seen.has(what)) { seen.add(what); problems.push("contrast " + ratio.toFixed(2) + ": " + what); }
  }
  if (texts === 0) problems.push("no text at all");
  return problems;
})()`

// jump goes to each finding's line and tells of those that cannot be seen then.
const jump = `(async () => {
  const problems = [];
  const settled = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const links = [...document.querySelectorAll(".findings a")];
  for (const link of links) {
    link.click();
    let box;
    for (let i = 0; i < 10; i++) {
      await settled();
      box = document.getElementById(link.hash.slice(1)).getBoundingClientRect();
      if (box.top >= 0 && Math.min(box.bottom, box.top + 40) <= innerHeight && box.height > 0) break;
    }
    if (!(box.top >= 0 && Math.min(box.bottom, box.top + 40) <= innerHeight && box.height > 0)) problems.push(link.hash + " is at " + box.top);
  }
  return [links.length + " links", ...problems];
})()`

// TestBrowser looks at every page on a phone and on a desk, in light and dark.
func TestBrowser(t *testing.T) {
	ctx := startBrowser(t)
	for name, page := range pages(t) {
		for _, w := range windows {
			if name != "boot-failed" && name != "big" && name != "hostile" && w.name != "phone-light" && w.name != "desktop-dark" {
				continue // every look is seen somewhere; starting a page takes a second
			}
			t.Run(name+" "+w.name, func(t *testing.T) {
				tab, cancel := chromedp.NewContext(ctx)
				defer cancel()
				c := listen(tab, t, page)
				if err := w.open(tab, page); err != nil {
					t.Fatal(err)
				}
				picture(tab, t, name+"-"+w.name)
				problems, jumps := ask[[]string](tab, t, inPage), ask[[]string](tab, t, jump)
				if len(jumps) != 1 || name == "big" && jumps[0] != "5 links" {
					t.Errorf("going to the findings: %q", jumps)
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				for _, p := range append(problems, c.list...) {
					t.Error(p)
				}
			})
		}
	}
}

// picture takes one for people, of the whole page or its first screen.
func picture(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	if *shots == "" {
		return
	}
	take := chromedp.FullScreenshot(100)
	if strings.HasPrefix(name, "big") || strings.HasPrefix(name, "hostile") {
		take = chromedp.CaptureScreenshot()
	}
	data, err := chromedp.Run(ctx, take)
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+".png"), data, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

const visibleLines = `[...document.querySelectorAll(".log > li")].filter((l) => l.getClientRects().length > 0).length`

// TestBrowserFilter types into the filter of the log, then goes to a line that
// is filtered out.
func TestBrowserFilter(t *testing.T) {
	ctx := startBrowser(t)
	if err := windows[0].open(ctx, pages(t)["success"]); err != nil {
		t.Fatal(err)
	}
	all := ask[int](ctx, t, visibleLines)
	if err := chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS("#filter"), "RTL8139")); err != nil {
		t.Fatal(err)
	}
	said, err := chromedp.Run(ctx, chromedp.Poll[string](`document.getElementById("matches").textContent`))
	if shown := ask[int](ctx, t, visibleLines); err != nil || shown == 0 || shown >= all || said != fmt.Sprintf("%d lines", shown) {
		t.Errorf("%d of %d lines are shown, and it says %q, %v", shown, all, said, err)
	}
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(".findings a"))); err != nil {
		t.Fatal(err)
	}
	_, err = chromedp.Run(ctx, chromedp.Poll[bool](`document.getElementById("matches").textContent === ""`))
	top := ask[float64](ctx, t, `document.querySelector(".log li:target").getBoundingClientRect().top`)
	if shown := ask[int](ctx, t, visibleLines); err != nil || shown != all || top < 0 || top > 844 {
		t.Errorf("after going to a finding %d of %d lines are shown, it is at %v, %v", shown, all, top, err)
	}
}

// TestBrowserWithoutScripts holds that all is there, and no filter that would
// do nothing.
func TestBrowserWithoutScripts(t *testing.T) {
	ctx := startBrowser(t)
	_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	if err == nil {
		err = windows[0].open(ctx, pages(t)["boot-failed"])
	}
	if err != nil {
		t.Fatal(err)
	}
	visible := ask[map[string]bool](ctx, t, `Object.fromEntries(["h1", ".timeline", ".facts", ".chart", "img", ".findings a", ".log li", ".filter"].map((s) => [s, document.querySelector(s).getClientRects().length > 0]))`)
	if len(visible) != 8 {
		t.Errorf("seen: %v", visible)
	}
	for name, shown := range visible {
		if shown == (name == ".filter") {
			t.Errorf("%s is shown: %v", name, shown)
		}
	}
}
