package registry

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// loginHost gives out tokens. It is an address, since the client looks names up.
const loginHost = "192.0.2.7"

// guarded is a registry that lets those in who have got a token with a password.
func guarded(open http.Handler, realm, password string, public bool) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		login := r.Header.Get("Authorization")
		if r.URL.Path == "/token" {
			_, given, ok := r.BasicAuth()
			switch {
			case ok && given == password:
				_, _ = rw.Write([]byte(`{"token":"member"}`))
			case !ok && public && !strings.Contains(r.URL.Query().Get("scope"), "push"):
				_, _ = rw.Write([]byte(`{"token":"anybody"}`))
			default:
				rw.WriteHeader(http.StatusForbidden)
			}
			return
		}
		if login != "Bearer member" && (login != "Bearer anybody" || r.Method != http.MethodGet && r.Method != http.MethodHead) {
			rw.Header().Set("WWW-Authenticate", `Bearer realm="https://`+realm+`/token",service="registry",scope="repository:m:pull"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			http.Redirect(rw, r, "https://cdn.example"+r.URL.Path+"?signature=SECRET", http.StatusTemporaryRedirect)
			return
		}
		open.ServeHTTP(rw, r)
	})
}

// TestLogin pushes to and pulls from registries with logins of all origins.
func TestLogin(t *testing.T) {
	const secret = "SECRET-of-login"
	config := filepath.Join(t.TempDir(), "config.json")
	text := `{"auths":{"` + host + `":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:"+secret)) + `"}}}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name       string
		host       string
		login      Login
		public     bool
		push, pull string // what the errors say; empty: it succeeds
	}{
		{name: "given", host: host, login: Login{User: "me", Password: secret}},
		{name: "docker's", host: host, login: Login{DockerConfig: config, GitHubToken: "SECRET-other"}},
		{name: "docker's, of another registry", host: "other.example", login: Login{DockerConfig: config}, push: "docker login other.example", pull: "docker login other.example"},
		{name: "docker's, not there", host: host, login: Login{DockerConfig: config + "x"}, push: "docker login", pull: "docker login"},
		{name: "docker's, damaged", host: host, login: Login{DockerConfig: bad}, push: "looking for a login in", pull: "looking for a login in"},
		{name: "GitHub's", host: gitHubRegistry, login: Login{GitHubToken: secret}},
		{name: "GitHub's, refused, but public", host: gitHubRegistry, login: Login{GitHubToken: "SECRET-wrong"}, public: true, push: "permission packages"},
		{name: "GitHub's, for another registry", host: host, login: Login{GitHubToken: secret}, push: "docker login", pull: "docker login"},
		{name: "nobody's", host: host, push: "docker login", pull: "docker login"},
		{name: "nobody's, public", host: host, public: true, push: "docker login"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				open := w.hosts[host]
				p := packed(8, 10_000)
				ref := w.push(host+"/m:1", p)
				ref.Repo.Registry = tc.host
				w.hosts[loginHost], w.hosts["cdn.example"] = nil, open
				w.hosts[tc.host] = guarded(open, loginHost, secret, tc.public)
				w.hosts[loginHost] = w.hosts[tc.host]
				w.c.Login = tc.login
				_, err := w.c.Push(t.Context(), parse(t, tc.host+"/n:2"), packed(9, 10_000))
				checkError(t, "push", err, tc.push)
				part := partFile(t)
				_, err = w.pull(ref, part, 0)
				checkError(t, "pull", err, tc.pull)
				if err == nil {
					sameFile(t, part, p)
				}
				for _, r := range w.all {
					if login := r.Header.Get("Authorization"); login != "" && r.URL.Host != tc.host && r.URL.Host != loginHost {
						t.Errorf("%s was sent to %s", login, r.URL.Host)
					}
					if _, password, _ := r.BasicAuth(); strings.Contains(password, "other") || password != "" && r.URL.Host == loginHost && tc.host == host && tc.login.Password == "" && tc.login.DockerConfig == "" {
						t.Errorf("the password %q was sent to %s", password, r.URL)
					}
				}
				for _, n := range w.notes {
					if strings.Contains(n, "SECRET") {
						t.Errorf("note %q", n)
					}
				}
			})
		})
	}
}

func checkError(t *testing.T, what string, err error, says string) {
	t.Helper()
	if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
		t.Errorf("%s: %v, want %q", what, err, says)
	}
	if err != nil && strings.Contains(err.Error(), "SECRET") {
		t.Errorf("%s: the error shows a secret: %v", what, err)
	}
}
