package doctor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// checkDocker: a runner needs the engine to start this action's container.
func checkDocker(ctx context.Context, e *exam) Finding {
	path := e.Paths.Docker
	if path == "" || e.Dial == nil || e.Node == nil {
		return skipped("not asked")
	}
	unused := func(text string, fix ...string) Finding {
		if e.inContainer() {
			return fine(text + ": a guest in this container needs none")
		}
		return limited(text+": the command line works without, a job can't start the action's container", fix...)
	}
	other := ""
	if h := e.Getenv("DOCKER_HOST"); h != "" && h != "unix://"+path {
		other = fmt.Sprintf(" (DOCKER_HOST is %s, but runners use %s)", printableHost(h), path)
	}
	node, err := e.Node(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unused("there is no "+path+other, "To use this host as a runner, install Docker: apt-get install docker.io.")
	case err == nil && node.Mode&fs.ModeSocket == 0:
		return unused(path+" is no socket"+other, "Remove it and start Docker again: Docker makes a directory there when a container wants a socket that does not exist.")
	}
	version, err := e.dockerVersion(ctx, path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return unused(fmt.Sprintf("%s may not be used by user %s%s", path, e.userName(), other), fmt.Sprintf("Add the user to the socket's group, and restart the runner's service: sudo usermod -aG %s %s.", e.groupName(node.GID), e.userName()))
	case errors.Is(err, syscall.ECONNREFUSED):
		return broken(path+" is there, and nobody listens"+other, "Start Docker: sudo systemctl start docker, and look at journalctl -u docker.")
	case err != nil:
		return broken(fmt.Sprintf("%s does not answer as Docker: %v%s", path, err, other), "Restart Docker: sudo systemctl restart docker, and look at journalctl -u docker.")
	}
	return fine(fmt.Sprintf("%s, API %s%s", version.Version, version.API, other))
}

// printableHost leaves out the user of an address.
func printableHost(address string) string {
	if u, err := url.Parse(address); err == nil && u.User != nil {
		u.User = nil
		return u.String()
	}
	return address
}

type dockerVersion struct {
	Version string `json:"Version"`
	API     string `json:"ApiVersion"`
}

// dockerVersion asks the engine (Docker Engine API, "Get version").
func (e *exam) dockerVersion(ctx context.Context, path string) (dockerVersion, error) {
	var v dockerVersion
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return e.Dial(ctx, "unix", path) }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/version", nil)
	if err != nil {
		return v, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return v, cause
		}
		return v, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return v, statusError(resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(&v); err != nil {
		return v, fmt.Errorf("its answer is no JSON: %w", err)
	}
	if v.Version == "" || v.API == "" {
		return v, errors.New("it names no version")
	}
	return v, nil
}

// answerLimit bounds what is read of an answer.
const answerLimit = 1 << 20

// jobFiles are the files through which a step tells the runner things.
var jobFiles = []struct{ name, lost string }{
	{"GITHUB_OUTPUT", "outputs"},
	{"GITHUB_STEP_SUMMARY", "the job summary"},
	{"GITHUB_ENV", "variables for later steps"},
}

// checkRunner looks at what a runner gives to a step.
func checkRunner(_ context.Context, e *exam) Finding {
	if !e.inJob() {
		return skipped("this is no job of GitHub Actions")
	}
	if e.Node == nil {
		return skipped("not asked")
	}
	workspace := e.Getenv("GITHUB_WORKSPACE")
	node, err := e.Node(workspace)
	switch {
	case workspace == "":
		return broken("GITHUB_WORKSPACE is not set", "Pass the runner's variables on to the container, as a runner does by itself.")
	case err != nil || !node.Mode.IsDir():
		return broken("GITHUB_WORKSPACE is "+workspace+", which is no directory here", "Mount the workspace into the container at that path, or set GITHUB_WORKSPACE to where it is.")
	}
	var lost, fix []string
	temp := e.Getenv("RUNNER_TEMP")
	if node, err := e.Node(temp); temp == "" || err != nil || !node.Mode.IsDir() {
		lost = append(lost, fmt.Sprintf("RUNNER_TEMP (%s) is no directory here, so that %s is used: runners before 2.329 give a container a path of their host", orNone(temp), e.Paths.Temp))
		fix = append(fix, "Update the runner to 2.329 or later.")
	}
	for _, f := range jobFiles {
		path := e.Getenv(f.name)
		if _, err := e.Node(path); path == "" || err != nil {
			lost = append(lost, fmt.Sprintf("%s (%s) is no file here, which loses %s", f.name, orNone(path), f.lost))
			fix = append(fix, "Pass the file of "+f.name+" on to the container.")
		}
	}
	if len(lost) > 0 {
		return limited(strings.Join(lost, "; "), fix...)
	}
	text := "workspace, temporary directory and files of the step are there"
	if os := e.Getenv("RUNNER_OS"); os != "" {
		text += fmt.Sprintf(" (%s, %s)", os, e.Getenv("RUNNER_ARCH"))
	}
	return fine(text)
}

func orNone(s string) string {
	if s == "" {
		return "not set"
	}
	return s
}

// checkServices looks for what the services of a job need: an address and a
// token. Neither's value is told.
func checkServices(_ context.Context, e *exam) Finding {
	if !e.inJob() {
		return skipped("this is no job of GitHub Actions")
	}
	const lost = ": artifacts (artifact-name) and shared saved machines do not work"
	address, token := e.Getenv("ACTIONS_RESULTS_URL"), e.Getenv("ACTIONS_RUNTIME_TOKEN")
	switch {
	case address == "" && token == "":
		return limited("ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN are not set"+lost,
			"A runner gives them to actions and not to run steps: use the action, or actions/upload-artifact and actions/cache. Servers of GitHub Enterprise have no such services.")
	case address == "":
		return limited("ACTIONS_RESULTS_URL is not set"+lost, "Update the runner; servers of GitHub Enterprise have no such services.")
	case token == "":
		return limited("ACTIONS_RUNTIME_TOKEN is not set"+lost, "Pass it on to the container with ACTIONS_RESULTS_URL.")
	}
	if u, err := url.Parse(address); err != nil || u.Host == "" {
		return broken("ACTIONS_RESULTS_URL is not an address", "Pass it on as the runner sets it.")
	}
	ends, err := expiry(token)
	switch {
	case err != nil:
		return broken("ACTIONS_RUNTIME_TOKEN can't be read as a JSON web token"+lost, "Pass it on as the runner sets it.")
	case !ends.IsZero() && ends.Before(e.Now()):
		return broken("ACTIONS_RUNTIME_TOKEN has expired at "+ends.UTC().Format(time.RFC3339)+lost, "Look at the clock; a token is good for the time of its job only.")
	}
	return fine("the address and the token are there")
}

// expiry reads the end of a token (RFC 7519, "exp"); zero: it has none.
func expiry(token string) (time.Time, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, errNoToken
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, errNoToken
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(text, &claims) != nil {
		return time.Time{}, errNoToken
	}
	if claims.Exp == 0 {
		return time.Time{}, nil
	}
	return time.Unix(int64(claims.Exp), 0), nil
}

var errNoToken = errors.New("not a token")

// checkServicesNetwork asks the services for nothing: any answer is a way there.
func checkServicesNetwork(ctx context.Context, e *exam) Finding {
	u, err := url.Parse(e.Getenv("ACTIONS_RESULTS_URL"))
	if err != nil || u.Host == "" || e.Client == nil {
		return skipped("there are none")
	}
	began := e.Now()
	_, err = e.head(ctx, (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}).String())
	var status statusError
	if err != nil && !errors.As(err, &status) {
		return broken(fmt.Sprintf("%s can't be reached: %v", u.Host, err), e.reach(err)...)
	}
	if took := e.Now().Sub(began); took > slowHead {
		return slow(fmt.Sprintf("%s answers after %.1f s", u.Host, took.Seconds()), "Transfers of artifacts and saved machines will be slow: look at the network.")
	}
	return fine(u.Host + " answers")
}
