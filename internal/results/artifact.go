package results

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Upload is an artifact to be made.
type Upload struct {
	Name   string  // see CheckName; one that is taken is ErrExists
	Bundle *Bundle // what it holds; its Notes say afterwards what it does not
	Days   int     // how many days it is kept, 1 to 90; 0: as the repository is set
}

// Artifact is one that was made.
type Artifact struct {
	ID     int64 // by which GitHub's addresses name it; 0 in a directory
	Name   string
	Size   int64  // of the zip; in a directory: of the files
	SHA256 string // of the zip, in hexadecimal; empty in a directory
	Path   string // of a directory; empty in a service
}

// Artifacts makes artifacts in the job's artifact service.
type Artifacts struct {
	Service *Service
	TempDir string // where the zip is made; "": the system's directory for temporary files
	MaxDays int    // GITHUB_RETENTION_DAYS, which bounds Upload.Days; 0: not known
}

// The limits of the input retention-days.
const (
	minDays = 1
	maxDays = 90
)

// errEmpty says that there is nothing to upload.
var errEmpty = errors.New("there is no file to upload")

// check tells what is wrong with an upload before anything is sent.
func (u Upload) check() error {
	if err := CheckName(u.Name); err != nil {
		return err
	}
	if u.Days != 0 && (u.Days < minDays || u.Days > maxDays) {
		return fmt.Errorf("an artifact is kept for %d to %d days, not for %d", minDays, maxDays, u.Days)
	}
	if u.Bundle == nil || u.Bundle.Len() == 0 {
		return errEmpty
	}
	return nil
}

// expires is when the artifact is to be removed; nil: as the repository is
// set. More days than it allows are cut, with a note.
func (a *Artifacts) expires(days int) *time.Time {
	if days == 0 {
		return nil
	}
	if a.MaxDays > 0 && days > a.MaxDays {
		a.Service.notify("the artifact is kept for %d days, not for %d: the repository's settings allow no more", a.MaxDays, days)
		days = a.MaxDays
	}
	at := a.Service.now().UTC().AddDate(0, 0, days).Truncate(time.Second)
	return &at
}

// createRequest has no mime_type: act's server refuses what it does not know,
// and for GitHub a zip is what is meant without it.
type createRequest struct {
	Run     string     `json:"workflow_run_backend_id"`
	Job     string     `json:"workflow_job_run_backend_id"`
	Name    string     `json:"name"`
	Expires *time.Time `json:"expires_at,omitempty"`
	Version int        `json:"version"`
}

// zipVersion is the version of the protocol in which an artifact is a zip.
const zipVersion = 4

type finalizeRequest struct {
	Run  string `json:"workflow_run_backend_id"`
	Job  string `json:"workflow_job_run_backend_id"`
	Name string `json:"name"`
	Size int64  `json:"size,string"`
	Hash string `json:"hash"`
}

// Upload makes an artifact: a zip of the bundle.
func (a *Artifacts) Upload(ctx context.Context, u Upload) (Artifact, error) {
	made, err := a.upload(ctx, u)
	if err != nil {
		return Artifact{}, fmt.Errorf("uploading artifact %q: %w", u.Name, err)
	}
	return made, nil
}

func (a *Artifacts) upload(ctx context.Context, u Upload) (Artifact, error) {
	if err := u.check(); err != nil {
		return Artifact{}, err
	}
	if _, err := a.Service.origin(); err != nil {
		return Artifact{}, err
	}
	c, err := parseToken(a.Service.Token)
	if err != nil {
		return Artifact{}, err
	}
	ids, err := c.backend()
	if err != nil {
		return Artifact{}, err
	}
	z, err := u.Bundle.writeZip(ctx, a.TempDir)
	if err != nil {
		return Artifact{}, err
	}
	defer func() { _ = z.file.Close() }() // it is gone with it
	r, err := a.Service.call(ctx, artifactService, "CreateArtifact", createRequest{
		Run: ids.run, Job: ids.job, Name: u.Name, Expires: a.expires(u.Days), Version: zipVersion,
	})
	if err != nil {
		return Artifact{}, err
	}
	if !r.ok() || r.text("signed_upload_url") == "" {
		return Artifact{}, a.Service.refused("CreateArtifact", r)
	}
	if err := a.Service.upload(ctx, r.text("signed_upload_url"), z.file, z.size, nil); err != nil {
		return Artifact{}, err
	}
	r, err = a.Service.call(ctx, artifactService, "FinalizeArtifact", finalizeRequest{
		Run: ids.run, Job: ids.job, Name: u.Name, Size: z.size, Hash: "sha256:" + z.sha256,
	})
	if err != nil {
		return Artifact{}, err
	}
	if !r.ok() {
		return Artifact{}, a.Service.refused("FinalizeArtifact", r)
	}
	return Artifact{ID: r.number("artifact_id"), Name: u.Name, Size: z.size, SHA256: z.sha256}, nil
}

// refused is the error of a reply that does not say ok.
func (s *Service) refused(method string, r reply) error {
	if text := s.redact(r.text("message")); text != "" {
		return fmt.Errorf("%s: the service says no: %s", method, text)
	}
	return fmt.Errorf("%s: the service says no and gives no reason", method)
}
