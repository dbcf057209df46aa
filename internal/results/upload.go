package results

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"golang.org/x/sync/errgroup"
)

const (
	// blockSize is how much is lost when a connection is. Azure's own limits,
	// 4000 MiB a block and 50,000 blocks, allow blobs of 400 GB with it.
	blockSize = 8 << 20
	maxBlocks = 50_000
	transfers = 8 // connections at a time
)

// upload puts a file into the blob at a signed address: as blocks, and then as
// the list that makes a blob of them. Each block is read from the file again
// when it is sent again; none is held in memory.
//
// Azure takes blocks in any order. Other peers may only pretend to (act
// appends them as they come), so they get one block after the other, and
// never a blob in a single request, which act ignores.
func (s *Service) upload(ctx context.Context, address string, file io.ReaderAt, size int64, progress Progress) error {
	blob, err := s.blob(address)
	if err != nil {
		return err
	}
	length := max(blockSize, (size+maxBlocks-1)/maxBlocks)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(1)
	if azure(address) {
		group.SetLimit(transfers)
	}
	m := &meter{total: size, progress: progress}
	var ids []string
	for start := int64(0); start < size && groupCtx.Err() == nil; start += length {
		id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08d", len(ids)))
		ids = append(ids, id)
		n := min(length, size-start)
		group.Go(func() error {
			if err := s.stage(groupCtx, blob, id, file, start, n); err != nil {
				return err
			}
			m.add(n)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("uploading: %w", cause)
		}
		return err
	}
	const what = "uploading the list of blocks"
	return s.retry(ctx, what, func(ctx context.Context, _ func()) error {
		_, err := blob.CommitBlockList(ctx, ids, nil)
		return s.blobError(what, err)
	})
}

// stage sends one block. Each try has a reader of its own: when a server
// answers early, net/http still reads from the one before.
func (s *Service) stage(ctx context.Context, blob *blockblob.Client, id string, file io.ReaderAt, start, length int64) error {
	const what = "uploading a block"
	return s.retry(ctx, what, func(ctx context.Context, touch func()) error {
		body := &lively{ReadSeeker: io.NewSectionReader(file, start, length), touch: touch}
		_, err := blob.StageBlock(ctx, id, streaming.NopCloser(body), nil)
		if failed := body.failure(); failed != nil {
			return lasting{fmt.Errorf("reading the file to upload: %w", failed)}
		}
		return s.blobError(what, err)
	})
}

// lively tells of every read, and remembers the one that failed.
type lively struct {
	io.ReadSeeker
	touch func()

	mu  sync.Mutex
	err error
}

func (l *lively) Read(p []byte) (int, error) {
	l.touch()
	n, err := l.ReadSeeker.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
	}
	return n, err
}

func (l *lively) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// blob is the library's client for one signed address. Repeating is ours to
// do: its own waits know neither our notes nor our end.
func (s *Service) blob(address string) (*blockblob.Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the service gave no http address to upload to")
	}
	blob, err := blockblob.NewClientWithNoCredential(address, &blockblob.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: s.blobs(),
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}})
	if err != nil {
		return nil, errors.New("the service gave an address that nothing can be uploaded to")
	}
	return blob, nil
}

// blobError replaces the library's error, which quotes the answer, by ours.
func (s *Service) blobError(what string, err error) error {
	var refused *azcore.ResponseError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		if refused.RawResponse == nil {
			return &APIError{Method: what, Status: refused.StatusCode, Code: s.redact(refused.ErrorCode)}
		}
		return s.refusal(what, refused.RawResponse, s.now())
	}
	return fmt.Errorf("%s: %w", what, plain(err))
}

// azure tells whether an address is of Azure's blob store, in any of its
// clouds, rather than of something that speaks its language.
func azure(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (strings.Contains(u.Hostname(), ".blob.core.") || strings.HasSuffix(u.Hostname(), ".blob.storage.azure.net"))
}

// expired tells the refusals by which a signed address that is too old is
// known.
func expired(err error) bool {
	var refused *APIError
	return errors.As(err, &refused) && (refused.Status == http.StatusForbidden || refused.Status == http.StatusUnauthorized)
}
