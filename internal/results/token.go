package results

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// errToken says that the token is not one of GitHub's. It never quotes it.
var errToken = errors.New("ACTIONS_RUNTIME_TOKEN can't be read as a JSON web token")

// backend names the run and the job to the services.
type backend struct{ run, job string }

// claims are the parts of the token that say what it is good for. We are not
// who has to check its signature.
type claims struct {
	Scopes string `json:"scp"` // separated by spaces
	Access string `json:"ac"`  // JSON: the cache scopes, with the rights to each
}

// maxToken bounds what is decoded. GitHub's have 1 to 3 KiB.
const maxToken = 64 << 10

func parseToken(token string) (claims, error) {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return c, errToken
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return c, errToken
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return claims{}, errToken
	}
	return c, nil
}

// scopePrefix is followed by the backend's ids of the run and the job.
const scopePrefix = "Actions.Results:"

// backend finds the ids in the scope Actions.Results:RUN:JOB.
func (c claims) backend() (backend, error) {
	for scope := range strings.FieldsSeq(c.Scopes) {
		ids, ok := strings.CutPrefix(scope, scopePrefix)
		if !ok {
			continue
		}
		run, job, ok := strings.Cut(ids, ":")
		if ok && run != "" && job != "" && !strings.Contains(job, ":") {
			return backend{run: run, job: job}, nil
		}
	}
	return backend{}, fmt.Errorf("%w: ACTIONS_RUNTIME_TOKEN has no scope %sRUN:JOB, which servers of artifacts before version 4 do not give", ErrUnsupported, scopePrefix)
}

// permission is a set of rights to a cache scope.
type permission int

const permissionWrite permission = 2 // 1 is to read

// readOnly tells whether the token says that no cache scope may be written
// to. A token that does not tell is taken to allow it: the service decides.
// The right to read is not looked at, because act's token leaves it out.
func (c claims) readOnly() bool {
	var scopes []struct {
		Scope      string
		Permission permission
	}
	if c.Access == "" || json.Unmarshal([]byte(c.Access), &scopes) != nil {
		return false
	}
	for _, s := range scopes {
		if s.Permission&permissionWrite != 0 {
			return false
		}
	}
	return len(scopes) > 0
}
